//! Services and their endpoints.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DeleteParams;
use serde_json::json;

use super::harness::{Cluster, template};

fn of_web(slices: &[Arc<EndpointSlice>]) -> Vec<Arc<EndpointSlice>> {
    let is_web = |slice: &&Arc<EndpointSlice>| {
        let labels = slice.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get("kubernetes.io/service-name")).is_some_and(|name| name == "web")
    };
    slices.iter().filter(is_web).cloned().collect()
}

fn ready(slices: &[Arc<EndpointSlice>]) -> usize {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints.filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|it| it.ready == Some(true))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_become_endpoints_and_cease_to_be() {
    let cluster = Cluster::start().await;
    cluster
        .create::<Service>(json!({
            "metadata": { "name": "web" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
        }))
        .await;
    for name in ["a", "b"] {
        let mut pod = template("v1");
        pod["metadata"]["name"] = json!(name);
        cluster.create::<Pod>(pod).await;
    }
    let slices = cluster.until::<EndpointSlice>("2 ready endpoints", |all| ready(&of_web(all)) == 2).await;
    let slices = of_web(&slices);
    assert_eq!(slices.len(), 1);
    let port = &slices[0].ports.as_ref().unwrap()[0];
    assert_eq!((port.port, port.name.as_deref()), (Some(8080), Some("")));
    let endpoint = &slices[0].endpoints.as_ref().unwrap()[0];
    assert_eq!(endpoint.node_name.as_deref(), Some("node-1"));
    let legacy = cluster
        .until_one::<Endpoints>("web", "2 addresses", |endpoints| {
            endpoints.subsets.iter().flatten().flat_map(|subset| subset.addresses.iter().flatten()).count() == 2
        })
        .await;
    assert_eq!(legacy.subsets.as_ref().unwrap()[0].ports.as_ref().unwrap()[0].port, 8080);

    cluster.delete::<Pod>("a", DeleteParams::default()).await;
    cluster.until::<EndpointSlice>("1 ready endpoint", |all| ready(&of_web(all)) == 1).await;
    cluster.delete::<Service>("web", DeleteParams::default()).await;
    cluster.until::<EndpointSlice>("no slice", |all| of_web(all).is_empty()).await;
    cluster
        .until::<Endpoints>("no endpoints", |all| {
            all.iter().all(|endpoints| endpoints.metadata.name.as_deref() != Some("web"))
        })
        .await;
}
