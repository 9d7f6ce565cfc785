//! `v1beta1` of the device plug-in protocol.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Nothing.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Empty {}

/// What a plug-in wants to be asked.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DevicePluginOptions {
    /// Before each start of a container.
    #[prost(bool, tag = "1")]
    pub pre_start_required: bool,
    /// Which devices it would rather give.
    #[prost(bool, tag = "2")]
    pub get_preferred_allocation_available: bool,
}

/// A plug-in makes itself known.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RegisterRequest {
    /// Of the protocol.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The name of its socket in the directory of plug-ins.
    #[prost(string, tag = "2")]
    pub endpoint: String,
    /// What its devices are called in pods.
    #[prost(string, tag = "3")]
    pub resource_name: String,
    /// What it wants to be asked.
    #[prost(message, optional, tag = "4")]
    pub options: Option<DevicePluginOptions>,
}

/// All devices of a plug-in.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListAndWatchResponse {
    /// The devices.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<PluginDevice>,
}

/// Near which memory a device is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TopologyInfo {
    /// The nodes.
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<NumaNode>,
}

/// A node of the memory.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct NumaNode {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// A device (`Device` of the protocol).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PluginDevice {
    /// Its name.
    #[prost(string, tag = "1")]
    pub id: String,
    /// `Healthy` or `Unhealthy`.
    #[prost(string, tag = "2")]
    pub health: String,
    /// Near which memory it is.
    #[prost(message, optional, tag = "3")]
    pub topology: Option<TopologyInfo>,
}

/// Which devices would be best?
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PreferredAllocationRequest {
    /// For each container.
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerPreferredAllocationRequest>,
}

/// Which devices would be best for one container?
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerPreferredAllocationRequest {
    /// Those that are free.
    #[prost(string, repeated, tag = "1")]
    pub available_device_ids: Vec<String>,
    /// Those that it must have.
    #[prost(string, repeated, tag = "2")]
    pub must_include_device_ids: Vec<String>,
    /// How many.
    #[prost(int32, tag = "3")]
    pub allocation_size: i32,
}

/// The best devices.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PreferredAllocationResponse {
    /// For each container.
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerPreferredAllocationResponse>,
}

/// The best devices for one container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerPreferredAllocationResponse {
    /// Their names.
    #[prost(string, repeated, tag = "1")]
    pub device_ids: Vec<String>,
}

/// Devices are about to be used.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AllocateRequest {
    /// For each container.
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerAllocateRequest>,
}

/// Devices are about to be used by one container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerAllocateRequest {
    /// Their names.
    #[prost(string, repeated, tag = "1")]
    pub devices_ids: Vec<String>,
}

/// What containers need for their devices.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AllocateResponse {
    /// For each container.
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerAllocateResponse>,
}

/// What one container needs for its devices.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
pub struct ContainerAllocateResponse {
    /// Its environment.
    #[prost(map = "string, string", tag = "1")]
    pub envs: HashMap<String, String>,
    /// Its mounts.
    #[prost(message, repeated, tag = "2")]
    pub mounts: Vec<PluginMount>,
    /// Its devices.
    #[prost(message, repeated, tag = "3")]
    pub devices: Vec<DeviceSpec>,
    /// What the runtime is told.
    #[prost(map = "string, string", tag = "4")]
    pub annotations: HashMap<String, String>,
    /// Devices by their CDI names.
    #[prost(message, repeated, tag = "5")]
    pub cdi_devices: Vec<CdiDevice>,
}

/// A mount (`Mount` of the protocol).
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
pub struct PluginMount {
    /// In the container.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// On the host.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// Not to be written.
    #[prost(bool, tag = "3")]
    pub read_only: bool,
}

/// A device node.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// In the container.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// On the host.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// Some of `rwm`.
    #[prost(string, tag = "3")]
    pub permissions: String,
}

/// A device by its CDI name.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
pub struct CdiDevice {
    /// `vendor/class=name`.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// A container is about to start.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PreStartContainerRequest {
    /// Its devices.
    #[prost(string, repeated, tag = "1")]
    pub devices_ids: Vec<String>,
}

/// It may.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct PreStartContainerResponse {}
