//! A device plug-in.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kedge_csi::Channel;
use kedge_devices::v1::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, ContainerPreferredAllocationResponse,
    DevicePluginOptions, DeviceSpec, Empty, ListAndWatchResponse, PluginDevice, PreStartContainerRequest,
    PreStartContainerResponse, PreferredAllocationRequest, PreferredAllocationResponse, RegisterRequest,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::serve::{Answer, Server, method, unary};

const DEADLINE: Duration = Duration::from_secs(10);

struct Shared {
    devices: watch::Sender<Vec<(String, bool)>>,
    calls: Mutex<Vec<String>>,
}

/// A running plug-in. It registers once.
pub struct TestPlugin {
    shared: Arc<Shared>,
    _server: Server,
}

impl TestPlugin {
    /// Serves healthy devices of a resource, and registers in the kubelet's root directory.
    ///
    /// # Panics
    ///
    /// Where the socket cannot be made.
    pub fn start(resource: &str, devices: &[&str], kubelet_root: &Path) -> Self {
        let directory = kubelet_root.join("device-plugins");
        let healthy = devices.iter().map(|id| ((*id).to_owned(), true)).collect();
        let shared = Arc::new(Shared { devices: watch::channel(healthy).0, calls: Mutex::default() });
        let known = shared.clone();
        let route = Arc::new(move |request: hyper::Request<tonic::body::Body>| {
            let shared = known.clone();
            match method(&request).as_str() {
                "ListAndWatch" => list_and_watch(&shared, request),
                "GetPreferredAllocation" => unary(request, move |asked| Ok(prefer_last(&asked))),
                "Allocate" => unary(request, move |asked| Ok(shared.allocate(&asked))),
                "PreStartContainer" => unary(request, move |asked: PreStartContainerRequest| {
                    shared.calls.lock().push(format!("start {}", asked.devices_ids.join(",")));
                    Ok(PreStartContainerResponse {})
                }),
                other => {
                    let text = other.to_owned();
                    Box::pin(async move { Status::unimplemented(text).into_http() })
                }
            }
        });
        let socket = format!("{}.sock", resource.replace('/', "-"));
        let register = register(directory.join("kubelet.sock"), socket.clone(), resource.to_owned());
        Self { shared, _server: Server::start(vec![directory.join(socket)], route, register) }
    }

    /// Says whether a device is healthy.
    pub fn set_health(&self, id: &str, healthy: bool) {
        self.shared.devices.send_modify(|devices| {
            devices.iter_mut().filter(|(known, _)| known == id).for_each(|(_, now)| *now = healthy);
        });
    }

    /// What was asked so far: `allocate <ids>`, `start <ids>`.
    pub fn calls(&self) -> Vec<String> {
        self.shared.calls.lock().clone()
    }
}

async fn register(kubelet: std::path::PathBuf, endpoint: String, resource_name: String) {
    let options = DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true };
    let request = RegisterRequest { version: "v1beta1".to_owned(), endpoint, resource_name, options: Some(options) };
    let channel = Channel::new(&kubelet, DEADLINE);
    let answer: Result<Empty, _> = channel.call("/v1beta1.Registration/Register", request).await;
    answer.expect("the kubelet takes the plug-in in");
}

fn list(devices: &[(String, bool)]) -> ListAndWatchResponse {
    let one = |(id, healthy): &(String, bool)| PluginDevice {
        id: id.clone(),
        health: if *healthy { "Healthy" } else { "Unhealthy" }.to_owned(),
        topology: None,
    };
    ListAndWatchResponse { devices: devices.iter().map(one).collect() }
}

fn list_and_watch(shared: &Shared, request: hyper::Request<tonic::body::Body>) -> Answer {
    let devices = shared.devices.subscribe();
    Box::pin(async move {
        let service = tower::service_fn(move |_: Request<Empty>| {
            let lists = WatchStream::new(devices.clone()).map(|devices| Ok::<_, Status>(list(&devices)));
            async move { Ok::<_, Status>(Response::new(lists)) }
        });
        tonic::server::Grpc::new(ProstCodec::<ListAndWatchResponse, Empty>::default())
            .server_streaming(service, request)
            .await
    })
}

/// This plug-in would rather give the last of its devices.
fn prefer_last(asked: &PreferredAllocationRequest) -> PreferredAllocationResponse {
    let one = |asked: &kedge_devices::v1::ContainerPreferredAllocationRequest| {
        let mut device_ids = asked.available_device_ids.clone();
        device_ids.sort_by(|a, b| b.cmp(a));
        device_ids.truncate(usize::try_from(asked.allocation_size).unwrap_or_default());
        ContainerPreferredAllocationResponse { device_ids }
    };
    PreferredAllocationResponse { container_responses: asked.container_requests.iter().map(one).collect() }
}

impl Shared {
    fn allocate(&self, asked: &AllocateRequest) -> AllocateResponse {
        let one = |asked: &kedge_devices::v1::ContainerAllocateRequest| {
            let ids = asked.devices_ids.join(",");
            self.calls.lock().push(format!("allocate {ids}"));
            let node = DeviceSpec {
                container_path: "/dev/kedge-plugin".to_owned(),
                host_path: "/dev/null".to_owned(),
                permissions: "rw".to_owned(),
            };
            ContainerAllocateResponse {
                envs: [("DEVICES".to_owned(), ids)].into(),
                devices: vec![node],
                ..ContainerAllocateResponse::default()
            }
        };
        AllocateResponse { container_responses: asked.container_requests.iter().map(one).collect() }
    }
}
