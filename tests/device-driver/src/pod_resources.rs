//! What the kubelet's pod resources API says, as lines.

use std::path::Path;
use std::time::Duration;

use kedge_csi::Channel;
use kedge_devices::v1::{ContainerResources, ListPodResourcesRequest, ListPodResourcesResponse};

const DEADLINE: Duration = Duration::from_secs(10);

/// The devices of each container that has some: `pod/container: resource=ids claim=devices`.
///
/// # Panics
///
/// Where no runtime can be made.
pub fn pod_resources(kubelet_root: &Path) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    let answer: Result<ListPodResourcesResponse, _> = runtime.block_on(async {
        let channel = Channel::new(&kubelet_root.join("pod-resources/kubelet.sock"), DEADLINE);
        channel.call("/v1.PodResourcesLister/List", ListPodResourcesRequest {}).await
    });
    let pods = answer.map_err(|error| error.to_string())?.pod_resources;
    let mut lines: Vec<String> = pods
        .iter()
        .flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)))
        .filter(|(_, container)| !container.devices.is_empty() || !container.dynamic_resources.is_empty())
        .map(|(pod, container)| format!("{}/{}: {}", pod.name, container.name, devices(container)))
        .collect();
    lines.sort();
    Ok(lines)
}

fn devices(container: &ContainerResources) -> String {
    let of_plugins =
        container.devices.iter().map(|given| format!("{}={}", given.resource_name, given.device_ids.join(",")));
    let of_claims = container.dynamic_resources.iter().map(|claim| {
        let names: Vec<&str> = claim.claim_resources.iter().map(|device| device.device_name.as_str()).collect();
        format!("{}={}", claim.claim_name, names.join(","))
    });
    of_plugins.chain(of_claims).collect::<Vec<_>>().join(" ")
}
