//! Nodes: their addresses, their silence; and the lease that the controllers compete for.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kedge_client::LeaderConfig;
use kedge_controllers::Config;

use serde_json::json;

use super::harness::{Cluster, template};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_get_addresses_of_their_own() {
    let config = Config { cluster_cidrs: vec!["10.244.0.0/16".to_owned()], ..Config::default() };
    let cluster = Cluster::with(config).await;
    cluster.add_node("node-2").await;
    let nodes = cluster.until::<Node>("2 CIDRs", |nodes| {
        nodes.len() == 2 && nodes.iter().all(|node| node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some()))
    });
    let mut cidrs: Vec<String> =
        nodes.await.iter().map(|node| node.spec.as_ref().unwrap().pod_cidr.clone().unwrap()).collect();
    cidrs.sort();
    assert_eq!(cidrs, ["10.244.0.0/24", "10.244.1.0/24"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_unknown_and_tainted() {
    let config = Config { node_monitor_grace_period: Duration::from_secs(2), ..Config::default() };
    let cluster = Cluster::with(config).await;
    let mut pod = template("v1");
    pod["metadata"]["name"] = json!("web");
    cluster.create::<Pod>(pod).await;
    let node = cluster.until_one::<Node>("node-1", "unknown and tainted", |node| {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
        taints.into_iter().any(|taint| taint.key == "node.kubernetes.io/unreachable" && taint.effect == "NoSchedule")
    });
    let conditions = node.await.status.as_ref().unwrap().conditions.clone().unwrap();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("Unknown", Some("NodeStatusUnknown")));
    assert_eq!(ready.message.as_deref(), Some("Kubelet stopped posting node status."));
    cluster.until_event("Node node-1 status is now: NodeNotReady").await;
    cluster
        .until_one::<Pod>("web", "not ready", |pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
            conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "False")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_work_once_they_lead() {
    let retry_period = Duration::from_millis(100);
    let leader = LeaderConfig { retry_period, ..LeaderConfig::new("kube-controller-manager", "here") };
    let cluster = Cluster::with(Config { leader: Some(leader), ..Config::default() }).await;
    cluster.until::<ServiceAccount>("default accounts", |all| all.len() >= 4).await;
    let leases = cluster.until::<Lease>("a lease", |all| {
        all.iter().any(|lease| lease.metadata.name.as_deref() == Some("kube-controller-manager"))
    });
    let holders: Vec<_> =
        leases.await.iter().filter_map(|lease| lease.spec.as_ref()?.holder_identity.clone()).collect();
    assert!(holders.contains(&"here".to_owned()), "{holders:?}");
}
