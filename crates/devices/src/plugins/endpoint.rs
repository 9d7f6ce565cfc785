//! Calls of one device plug-in.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use kedge_csi::{Channel, CsiError};

use super::choose::Choice;
use crate::v1::{
    AllocateRequest, AllocateResponse, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, DevicePluginOptions, Empty, ListAndWatchResponse, PreStartContainerRequest,
    PreStartContainerResponse, PreferredAllocationRequest, PreferredAllocationResponse,
};

/// Upstream waits this long for a container's devices to be made ready; it bounds no other call.
const DEADLINE: Duration = Duration::from_secs(30);

/// A plug-in that can be called. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    channel: Channel,
    options: DevicePluginOptions,
}

impl Endpoint {
    pub(super) fn new(socket: &Path, options: DevicePluginOptions) -> Self {
        Self { channel: Channel::new(socket, DEADLINE), options }
    }

    /// Its devices, again and again.
    pub(super) async fn watch(&self) -> Result<tonic::Streaming<ListAndWatchResponse>, CsiError> {
        self.channel.stream("/v1beta1.DevicePlugin/ListAndWatch", Empty {}).await
    }

    /// Which devices it would rather give, where it says that it has an opinion.
    pub(super) async fn preferred(&self, choice: &Choice, count: usize) -> Result<Vec<String>, String> {
        if !self.options.get_preferred_allocation_available {
            return Ok(Vec::new());
        }
        let of_container = ContainerPreferredAllocationRequest {
            available_device_ids: choice.available.union(&choice.settled).cloned().collect(),
            must_include_device_ids: choice.settled.iter().cloned().collect(),
            allocation_size: i32::try_from(count).unwrap_or(i32::MAX),
        };
        let request = PreferredAllocationRequest { container_requests: vec![of_container] };
        let answer: Result<PreferredAllocationResponse, CsiError> =
            self.channel.call("/v1beta1.DevicePlugin/GetPreferredAllocation", request).await;
        let answer =
            answer.map_err(|error| format!("device plugin GetPreferredAllocation rpc failed with err: {error}"))?;
        Ok(answer.container_responses.into_iter().flat_map(|response| response.device_ids).collect())
    }

    /// What a container needs for devices.
    pub(super) async fn allocate(&self, ids: &BTreeSet<String>) -> Result<ContainerAllocateResponse, String> {
        let of_container = ContainerAllocateRequest { devices_ids: ids.iter().cloned().collect() };
        let request = AllocateRequest { container_requests: vec![of_container] };
        let answer: Result<AllocateResponse, CsiError> =
            self.channel.call("/v1beta1.DevicePlugin/Allocate", request).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let first = answer.container_responses.into_iter().next();
        first.ok_or_else(|| "no containers return in allocation response".to_owned())
    }

    /// A container with these devices is about to start.
    pub(super) async fn pre_start(&self, ids: &BTreeSet<String>) -> Result<(), CsiError> {
        if !self.options.pre_start_required {
            return Ok(());
        }
        let request = PreStartContainerRequest { devices_ids: ids.iter().cloned().collect() };
        let method = "/v1beta1.DevicePlugin/PreStartContainer";
        self.channel.call::<_, PreStartContainerResponse>(method, request).await.map(|_| ())
    }
}
