//! Nodes that the simulation makes, and nodes that it takes over.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kedge_simulate::{FILLER_NAMESPACE, READY, SILENT, SIMULATED};
use kube::api::Api;
use serde_json::json;

use super::harness::Cluster;

/// The status of a node's condition `Ready`.
fn ready(node: &Node) -> &str {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == "Ready").map_or("", |condition| condition.status.as_str())
}

fn is(node: &Node, name: &str) -> bool {
    node.metadata.name.as_deref() == Some(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_pods_are_made_and_made_once() {
    let cluster = Cluster::start().await;
    let first = cluster.simulate("nodes=4,pods=20,zones=2,cpu=8");
    let is_full = |pods: &[std::sync::Arc<Pod>]| {
        pods.len() == 20 && pods.iter().all(|pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Running"))
    };
    let pods = cluster.until::<Pod>("all pods run", is_full).await;
    let mut ips: Vec<_> = pods.iter().map(|pod| pod.status.as_ref().unwrap().pod_ip.clone().unwrap()).collect();
    ips.sort();
    ips.dedup();
    assert_eq!(ips.len(), 20, "every pod has an address of its own");
    let nodes = cluster.until::<Node>("nodes are ready", |nodes| nodes.iter().all(|node| ready(node) == "True")).await;
    assert_eq!(nodes.len(), 4);
    assert_eq!(nodes[1].status.as_ref().unwrap().capacity.as_ref().unwrap()["cpu"].0, "8");
    assert_eq!(nodes[1].metadata.labels.as_ref().unwrap()["topology.kubernetes.io/zone"], "zone-1");
    cluster.until::<Lease>("every node has a lease", |leases| leases.len() == 4).await;

    // Whoever is gone is made again by the next run, and nobody twice.
    drop(first);
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), FILLER_NAMESPACE);
    pods.delete("filler-0000003", &kube::api::DeleteParams::default().grace_period(0)).await.unwrap();
    cluster.until::<Pod>("one pod is gone", |pods| pods.len() == 19).await;
    let _second = cluster.simulate("nodes=4,pods=20,zones=2,cpu=8");
    let again = cluster.until::<Pod>("it is made again", is_full).await;
    let mut ips: Vec<_> = again.iter().map(|pod| pod.status.as_ref().unwrap().pod_ip.clone().unwrap()).collect();
    ips.sort();
    ips.dedup();
    assert_eq!(ips.len(), 20, "addresses in use are not given out again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_anybodys_is_taken_over_and_obeys() {
    let cluster = Cluster::start().await;
    let _simulation = cluster.simulate("");
    let capacity = json!({"cpu": "3", "memory": "5Gi", "pods": "7", "example.com/gpu": "2"});
    let mine =
        json!({"metadata": {"name": "mine", "annotations": {SIMULATED: "true"}}, "status": {"capacity": capacity}});
    cluster.create_in_cluster::<Node>(mine).await;
    cluster.create_in_cluster::<Node>(json!({"metadata": {"name": "other"}})).await;
    let nodes = cluster.until::<Node>("it is ready", |nodes| nodes.iter().any(|node| ready(node) == "True")).await;
    let node = nodes.iter().find(|node| is(node, "mine")).unwrap();
    let status = node.status.as_ref().unwrap();
    assert_eq!(status.allocatable.as_ref().unwrap()["example.com/gpu"].0, "2");
    assert_eq!(node.metadata.labels.as_ref().unwrap()["kubernetes.io/hostname"], "mine");
    let other = nodes.iter().find(|node| is(node, "other")).unwrap();
    assert_ne!(ready(other), "True", "a node without the annotation is left alone");

    let api = Api::<Node>::all(cluster.client.clone());
    cluster.annotate(api.clone(), "mine", READY, "false").await;
    let with = |status: &'static str| {
        move |nodes: &[std::sync::Arc<Node>]| nodes.iter().any(|node| is(node, "mine") && ready(node) == status)
    };
    cluster.until::<Node>("it is not ready", with("False")).await;
    cluster.annotate(api.clone(), "mine", READY, "true").await;
    cluster.until::<Node>("it is ready again", with("True")).await;
    cluster.annotate(api.clone(), "mine", SILENT, "true").await;
    cluster.until::<Node>("nobody hears of it", with("Unknown")).await;
    cluster.annotate(api, "mine", SILENT, "false").await;
    cluster.until::<Node>("it is back", with("True")).await;
}
