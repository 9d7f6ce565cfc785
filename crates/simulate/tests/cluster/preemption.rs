//! Pods that make others go, many at once.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::{Value, json};

use super::harness::Cluster;

const NODES: usize = 4;

fn pod(name: String, cpu: &str, class: Option<&str>) -> Value {
    let requests = json!({"cpu": cpu, "memory": "64Mi"});
    json!({"metadata": {"name": name}, "spec": {"priorityClassName": class, "containers": [
        {"name": "main", "image": "example.com/i", "resources": {"requests": requests}}]}})
}

fn running(pods: &[std::sync::Arc<Pod>], prefix: &str) -> usize {
    let is_one = |pod: &&std::sync::Arc<Pod>| {
        let is_running = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
        is_running && pod.metadata.name.as_deref().is_some_and(|name| name.starts_with(prefix))
    };
    pods.iter().filter(is_one).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn regress_no_more_go_than_must() {
    let cluster = Cluster::start().await;
    let _simulation = cluster.simulate(&format!("nodes={NODES},cpu=4"));
    cluster.until_pods_have_an_account().await;
    let class = json!({"metadata": {"name": "high"}, "value": 10});
    cluster.create_in_cluster::<PriorityClass>(class).await;
    for number in 0..NODES * 4 {
        cluster.create::<Pod>(pod(format!("low-{number}"), "900m", None)).await;
    }
    cluster.until::<Pod>("the nodes are full", |pods| running(pods, "low-") == NODES * 4).await;
    for number in 0..NODES {
        cluster.create::<Pod>(pod(format!("high-{number}"), "3", Some("high"))).await;
    }
    cluster.until::<Pod>("who matters more runs", |pods| running(pods, "high-") == NODES).await;
    let left = cluster.until::<Pod>("the others have left", |pods| pods.len() <= NODES * 2).await;
    assert_eq!(running(&left, "low-"), NODES, "beside each of them one of four had room");
}
