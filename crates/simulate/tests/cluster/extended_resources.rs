//! Extended resources behind which a device class stands, from the pod to the claim that is made for it.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};

use super::harness::Cluster;

fn pod(name: &str) -> Value {
    let amounts = json!({"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}});
    json!({"metadata": {"name": name}, "spec": {"containers": [
        {"name": "main", "image": "example.com/i", "resources": amounts}]}})
}

/// The pods that have a node.
fn placed(pods: &[std::sync::Arc<Pod>]) -> Vec<&Pod> {
    pods.iter().map(|pod| &**pod).filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_gives_devices_to_who_asks_for_its_resource() {
    let cluster = Cluster::start().await;
    let _simulation = cluster.simulate("nodes=2,cpu=4");
    cluster.until_pods_have_an_account().await;
    let node = cluster.until::<k8s_openapi::api::core::v1::Node>("nodes", |nodes| nodes.len() == 2).await[0]
        .metadata
        .name
        .clone();
    let class = json!({"metadata": {"name": "gpus"}, "spec": {"extendedResourceName": "example.com/gpu",
        "selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]}});
    cluster.create_in_cluster::<DeviceClass>(class).await;
    let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 1});
    cluster
        .create_in_cluster::<ResourceSlice>(json!({"metadata": {"name": "s"}, "spec": {
            "driver": "gpu.example.com", "nodeName": node, "pool": pool, "devices": [{"name": "gpu0"}]}}))
        .await;
    cluster.create::<Pod>(pod("first")).await;
    let pods = cluster.until::<Pod>("the first pod has a node", |pods| placed(pods).len() == 1).await;
    let first = placed(&pods)[0];
    assert_eq!(first.spec.as_ref().unwrap().node_name, node);
    let status = first.status.as_ref().unwrap().extended_resource_claim_status.as_ref().expect("it has a claim");
    let mapping = &status.request_mappings[0];
    let mapped = [&mapping.container_name, &mapping.resource_name, &mapping.request_name];
    assert_eq!(mapped, ["main", "example.com/gpu", "container-0-request-0"]);
    let claims = cluster.until::<ResourceClaim>("the claim", |claims| claims.len() == 1).await;
    let claim = &claims[0];
    assert_eq!(claim.metadata.name.as_ref(), Some(&status.resource_claim_name));
    assert!(status.resource_claim_name.starts_with("first-extended-resources-"));
    let results = claim.status.as_ref().unwrap().allocation.as_ref().unwrap().devices.as_ref().unwrap().results.clone();
    assert_eq!(results.unwrap()[0].device, "gpu0");
    // The only device is taken; it is free again when the pod is gone, with its claim.
    cluster.create::<Pod>(pod("second")).await;
    let says_why = |pod: &Pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions
            .into_iter()
            .any(|one| one.message.as_deref().is_some_and(|text| text.contains("cannot allocate all claims")))
    };
    cluster.until::<Pod>("the second pod waits", |pods| pods.iter().any(|pod| says_why(pod))).await;
    let pods = Api::<Pod>::default_namespaced(cluster.client.clone());
    pods.delete("first", &DeleteParams::default().grace_period(0)).await.unwrap();
    let is_second = |pod: &&Pod| pod.metadata.name.as_deref() == Some("second");
    cluster.until::<Pod>("the second pod has a node", |pods| placed(pods).iter().any(is_second)).await;
}
