//! Services and their endpoints.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_controllers::Config;
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

fn balanced(name: &str, extra: serde_json::Value) -> serde_json::Value {
    let mut spec = json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec})
}

fn address(service: &Service) -> Option<&str> {
    let balancer = service.status.as_ref()?.load_balancer.as_ref()?;
    balancer.ingress.as_ref()?.first()?.ip.as_deref()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_balancers_get_addresses_of_the_pool_and_give_them_back() {
    let load_balancer_pool = "192.0.2.1-192.0.2.2".parse().unwrap();
    let cluster = Cluster::with(Config { load_balancer_pool, ..Config::default() }).await;
    cluster.create::<Service>(balanced("foreign", json!({"loadBalancerClass": "example.com/other"}))).await;
    cluster.create::<Service>(balanced("chosen", json!({"loadBalancerIP": "192.0.2.2"}))).await;
    let chosen = cluster.until_one::<Service>("chosen", "an address", |service| address(service).is_some()).await;
    assert_eq!(address(&chosen), Some("192.0.2.2"));
    let finalizers = chosen.metadata.finalizers.clone().unwrap_or_default();
    assert_eq!(finalizers, ["service.kubernetes.io/load-balancer-cleanup"]);
    cluster.create::<Service>(balanced("first", json!({}))).await;
    let first = cluster.until_one::<Service>("first", "an address", |service| address(service).is_some()).await;
    assert_eq!(address(&first), Some("192.0.2.1"));
    // The pool is empty; an address that is given back is given on.
    cluster.create::<Service>(balanced("waiting", json!({}))).await;
    cluster.delete::<Service>("chosen", DeleteParams::default()).await;
    let waiting = cluster.until_one::<Service>("waiting", "an address", |service| address(service).is_some()).await;
    assert_eq!(address(&waiting), Some("192.0.2.2"));
    let foreign = cluster.until_one::<Service>("foreign", "being there", |_| true).await;
    assert!(address(&foreign).is_none() && foreign.metadata.finalizers.is_none());
}
