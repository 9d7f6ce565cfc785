//! Deployments, ReplicaSets and DaemonSets.

use std::collections::HashSet;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::api::DeleteParams;
use serde_json::json;

use super::harness::{Cluster, template};

fn available(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}

fn is_rolled_out(deployment: &Deployment, replicas: i32) -> bool {
    let Some(status) = &deployment.status else { return false };
    status.observed_generation == deployment.metadata.generation
        && status.updated_replicas == Some(replicas)
        && status.replicas == Some(replicas)
        && status.available_replicas == Some(replicas)
}

fn revision(deployment: &Deployment) -> String {
    deployment.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"].clone()
}

fn deployment(replicas: i32) -> serde_json::Value {
    json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": template("v1"),
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_out_scales_updates_and_goes_back() {
    let cluster = Cluster::start().await;
    cluster.create::<Deployment>(deployment(3)).await;
    let first = cluster.until_one::<Deployment>("web", "3 pods available", |it| is_rolled_out(it, 3)).await;
    assert_eq!(revision(&first), "1");
    let conditions: Vec<String> = first
        .status
        .as_ref()
        .unwrap()
        .conditions
        .as_ref()
        .unwrap()
        .iter()
        .map(|condition| format!("{} {} {}", condition.type_, condition.status, condition.reason.as_deref().unwrap()))
        .collect();
    assert!(conditions.contains(&"Available True MinimumReplicasAvailable".to_owned()), "{conditions:?}");
    cluster.until_event("from 0 to 3").await;
    cluster.until_event("Created pod: web-").await;

    cluster.merge::<Deployment>("web", json!({ "spec": { "replicas": 5 } })).await;
    cluster.until_one::<Deployment>("web", "5 pods available", |it| is_rolled_out(it, 5)).await;
    cluster.until_event("from 3 to 5").await;

    cluster.merge::<Deployment>("web", json!({ "spec": { "template": template("v2") } })).await;
    let second =
        cluster.until_one::<Deployment>("web", "rolled out v2", |it| is_rolled_out(it, 5) && revision(it) == "2").await;
    assert_eq!(available(&second), 5);
    let sets = cluster
        .until::<ReplicaSet>("the old set is empty", |sets| {
            sets.iter().any(|set| set.status.as_ref().is_some_and(|status| status.replicas == 0))
        })
        .await;
    assert_eq!(sets.len(), 2);

    cluster.merge::<Deployment>("web", json!({ "spec": { "template": template("v1") } })).await;
    cluster.until_one::<Deployment>("web", "went back", |it| is_rolled_out(it, 5) && revision(it) == "3").await;
    let sets = cluster.until::<ReplicaSet>("no third set", |sets| sets.len() == 2).await;
    let history: HashSet<_> = sets
        .iter()
        .filter_map(|set| set.metadata.annotations.as_ref()?.get("deployment.kubernetes.io/revision-history").cloned())
        .collect();
    assert_eq!(history, HashSet::from(["1".to_owned()]));
    let pods = cluster.until::<Pod>("5 pods", |pods| pods.len() == 5).await;
    assert!(pods.iter().all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("v1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_deployment_never_runs_old_and_new_pods_together() {
    let cluster = Cluster::start().await;
    let mut value = deployment(2);
    value["spec"]["strategy"] = json!({ "type": "Recreate" });
    cluster.create::<Deployment>(value).await;
    cluster.until_one::<Deployment>("web", "2 pods available", |it| is_rolled_out(it, 2)).await;
    cluster.merge::<Deployment>("web", json!({ "spec": { "template": template("v2") } })).await;
    cluster.until_one::<Deployment>("web", "rolled out v2", |it| is_rolled_out(it, 2) && revision(it) == "2").await;
    let pods = cluster.until::<Pod>("2 pods", |pods| pods.len() == 2).await;
    assert!(pods.iter().all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("v2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_set_makes_exactly_as_many_pods_as_wanted() {
    let cluster = Cluster::start().await;
    let set = json!({
        "metadata": { "name": "many" },
        "spec": { "replicas": 120, "selector": { "matchLabels": { "app": "web" } }, "template": template("v1") },
    });
    cluster.create::<ReplicaSet>(set).await;
    cluster
        .until_one::<ReplicaSet>("many", "120 ready", |set| {
            set.status.as_ref().and_then(|status| status.ready_replicas) == Some(120)
        })
        .await;
    let events = cluster.events().await;
    assert!(events.iter().all(|event| !event.contains("SuccessfulDelete")), "a pod too many was created");
    // One that is lost is replaced; one that loses its label is let go of and replaced.
    let pods = cluster.until::<Pod>("120 pods", |pods| pods.len() == 120).await;
    let name = |index: usize| pods[index].metadata.name.clone().unwrap();
    cluster.delete::<Pod>(&name(0), DeleteParams::default()).await;
    cluster.merge::<Pod>(&name(1), json!({ "metadata": { "labels": { "app": "other" } } })).await;
    cluster
        .until::<Pod>("121 pods, one without owner", |pods| {
            let free =
                pods.iter().filter(|pod| pod.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)).count();
            pods.len() == 121 && free == 1
        })
        .await;
    cluster.merge::<ReplicaSet>("many", json!({ "spec": { "replicas": 2 } })).await;
    cluster.until::<Pod>("3 pods", |pods| pods.len() == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_controller_adopts_and_fills_up() {
    let cluster = Cluster::start().await;
    let mut orphan = template("v1");
    orphan["metadata"]["name"] = json!("orphan");
    cluster.create::<Pod>(orphan).await;
    cluster
        .create::<ReplicationController>(json!({
            "metadata": { "name": "rc" },
            "spec": { "replicas": 2, "selector": { "app": "web" }, "template": template("v1") },
        }))
        .await;
    cluster
        .until_one::<ReplicationController>("rc", "2 ready", |it| {
            it.status.as_ref().and_then(|status| status.ready_replicas) == Some(2)
        })
        .await;
    let pods = cluster.until::<Pod>("2 pods", |pods| pods.len() == 2).await;
    assert!(pods.iter().any(|pod| pod.metadata.name.as_deref() == Some("orphan")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_runs_on_every_node_and_updates_one_by_one() {
    let cluster = Cluster::start().await;
    cluster
        .create::<DaemonSet>(json!({
            "metadata": { "name": "agent" },
            "spec": { "selector": { "matchLabels": { "app": "web" } }, "template": template("v1") },
        }))
        .await;
    let is_done = |set: &DaemonSet, nodes: i32| {
        set.status.as_ref().is_some_and(|status| {
            status.observed_generation == set.metadata.generation
                && status.desired_number_scheduled == nodes
                && status.number_available == Some(nodes)
                && status.updated_number_scheduled == Some(nodes)
        })
    };
    cluster.until_one::<DaemonSet>("agent", "1 node", |set| is_done(set, 1)).await;
    cluster.merge::<DaemonSet>("agent", json!({ "spec": { "template": template("v2") } })).await;
    cluster
        .until_one::<DaemonSet>("agent", "updated", |set| is_done(set, 1) && set.metadata.generation == Some(2))
        .await;
    let pods = cluster.until::<Pod>("1 pod", |pods| pods.len() == 1).await;
    assert_eq!(pods[0].spec.as_ref().unwrap().containers[0].image.as_deref(), Some("v2"));
    let revisions = cluster.until::<ControllerRevision>("2 revisions", |all| all.len() == 2).await;
    let mut numbers: Vec<i64> = revisions.iter().map(|revision| revision.revision).collect();
    numbers.sort();
    assert_eq!(numbers, [1, 2]);
}
