//! The pod resources API at `pod-resources/kubelet.sock`: which container has which devices, for monitoring agents.
//!
//! It changes nothing. Invariant: it answers from what is noted, and asks neither drivers nor plug-ins.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use tonic::Status;

use crate::devices::Devices;
use crate::grpc;
use crate::v1::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices, ContainerResources,
    GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse, PodResources,
};

/// The pods that are not over.
pub type Pods = Arc<dyn Fn() -> Vec<Arc<Pod>> + Send + Sync>;

/// Answers until the end of the node agent.
pub(crate) async fn serve(devices: Arc<Devices>, root: &Path, pods: Pods) {
    let shutdown = devices.shutdown();
    let listener = match grpc::bind(&root.join("pod-resources/kubelet.sock")) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the pod resources API is not served: its socket could not be made");
            return shutdown.cancelled().await;
        }
    };
    let route = move |request: hyper::Request<tonic::body::Body>| {
        let (devices, pods) = (devices.clone(), pods.clone());
        async move {
            match request.uri().path() {
                "/v1.PodResourcesLister/List" => {
                    grpc::unary(request, |_: ListPodResourcesRequest| list(&devices, &pods)).await
                }
                "/v1.PodResourcesLister/Get" => grpc::unary(request, |asked| get(&devices, &pods, asked)).await,
                "/v1.PodResourcesLister/GetAllocatableResources" => {
                    grpc::unary(request, |_: AllocatableResourcesRequest| allocatable(&devices)).await
                }
                _ => grpc::unknown(&request),
            }
        }
    };
    grpc::serve(listener, route, shutdown).await;
}

async fn list(devices: &Devices, pods: &Pods) -> Result<ListPodResourcesResponse, Status> {
    Ok(ListPodResourcesResponse { pod_resources: pods().iter().map(|pod| of_pod(devices, pod)).collect() })
}

async fn get(devices: &Devices, pods: &Pods, asked: GetPodResourcesRequest) -> Result<GetPodResourcesResponse, Status> {
    let is_asked = |pod: &&Arc<Pod>| {
        let metadata = &pod.metadata;
        metadata.name.as_ref() == Some(&asked.pod_name) && metadata.namespace.as_ref() == Some(&asked.pod_namespace)
    };
    match pods().iter().find(is_asked) {
        Some(pod) => Ok(GetPodResourcesResponse { pod_resources: Some(of_pod(devices, pod)) }),
        None => Err(Status::unknown(format!("pod {} in namespace {} not found", asked.pod_name, asked.pod_namespace))),
    }
}

async fn allocatable(devices: &Devices) -> Result<AllocatableResourcesResponse, Status> {
    Ok(AllocatableResourcesResponse { devices: devices.plugins().healthy().map(of_resource).collect() })
}

fn of_resource((resource_name, device_ids): (String, Vec<String>)) -> ContainerDevices {
    ContainerDevices { resource_name, device_ids }
}

fn of_pod(devices: &Devices, pod: &Pod) -> PodResources {
    let spec = pod.spec.as_ref();
    // Init containers that end have nothing any more.
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).filter(sidecar);
    let mut containers = Vec::new();
    for container in sidecars.chain(spec.iter().flat_map(|spec| &spec.containers)) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let given = devices.plugins().given(uid, &container.name);
        containers.push(ContainerResources {
            name: container.name.clone(),
            devices: given.into_iter().map(of_resource).collect(),
            dynamic_resources: devices.claims().resources(pod, container),
        });
    }
    PodResources {
        name: pod.metadata.name.clone().unwrap_or_default(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        containers,
    }
}
