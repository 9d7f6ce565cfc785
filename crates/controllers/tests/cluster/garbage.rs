//! What becomes of dependents when their owner goes.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, PropagationPolicy};
use serde_json::json;

use super::harness::{Cluster, template};

async fn rolled_out() -> Cluster {
    let cluster = Cluster::start().await;
    cluster
        .create::<Deployment>(json!({
            "metadata": { "name": "web" },
            "spec": { "replicas": 2, "selector": { "matchLabels": { "app": "web" } }, "template": template("v1") },
        }))
        .await;
    cluster
        .until_one::<Deployment>("web", "2 available", |it| {
            it.status.as_ref().and_then(|status| status.available_replicas) == Some(2)
        })
        .await;
    cluster
}

fn by(policy: PropagationPolicy) -> DeleteParams {
    DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn background_deletion_takes_dependents_along() {
    let cluster = rolled_out().await;
    cluster.delete::<Deployment>("web", by(PropagationPolicy::Background)).await;
    cluster.until::<ReplicaSet>("no sets", |all| all.is_empty()).await;
    cluster.until::<Pod>("no pods", |all| all.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreground_deletion_ends_with_the_owner() {
    let cluster = rolled_out().await;
    cluster.delete::<Deployment>("web", by(PropagationPolicy::Foreground)).await;
    cluster.until::<Deployment>("no deployment", |all| all.is_empty()).await;
    let sets = cluster.api::<ReplicaSet>().list(&Default::default()).await.unwrap();
    let pods = cluster.api::<Pod>().list(&Default::default()).await.unwrap();
    assert_eq!((sets.items.len(), pods.items.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_stay_and_are_adopted_again() {
    let cluster = rolled_out().await;
    cluster.delete::<Deployment>("web", by(PropagationPolicy::Orphan)).await;
    cluster.until::<Deployment>("no deployment", |all| all.is_empty()).await;
    let sets = cluster
        .until::<ReplicaSet>("a set without owner", |sets| {
            sets.len() == 1 && sets[0].metadata.owner_references.as_ref().is_none_or(Vec::is_empty)
        })
        .await;
    cluster.until::<Pod>("2 pods", |pods| pods.len() == 2).await;
    cluster
        .create::<Deployment>(json!({
            "metadata": { "name": "web" },
            "spec": { "replicas": 2, "selector": { "matchLabels": { "app": "web" } }, "template": template("v1") },
        }))
        .await;
    let adopted = cluster
        .until::<ReplicaSet>("adopted", |sets| {
            sets.len() == 1 && sets[0].metadata.owner_references.as_ref().is_some_and(|owners| owners.len() == 1)
        })
        .await;
    assert_eq!(adopted[0].metadata.uid, sets[0].metadata.uid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_never_was_does_not_hold() {
    let cluster = Cluster::start().await;
    let owned_by = |name: &str, uid: &str| {
        json!({ "metadata": {
            "name": name,
            "ownerReferences": [{ "apiVersion": "v1", "kind": "ConfigMap", "name": "ghost", "uid": uid }],
        } })
    };
    let ghost: ConfigMap = cluster.create(json!({ "metadata": { "name": "ghost" } })).await;
    let uid = ghost.metadata.uid.unwrap();
    cluster.create::<ConfigMap>(owned_by("kept", &uid)).await;
    cluster.create::<ConfigMap>(owned_by("lost", "00000000-0000-0000-0000-000000000000")).await;
    let left = |all: &[std::sync::Arc<ConfigMap>], name: &str| {
        all.iter().any(|map| map.metadata.name.as_deref() == Some(name))
    };
    cluster.until::<ConfigMap>("the one with a false uid is gone", |all| !left(all, "lost") && left(all, "kept")).await;
    cluster.delete::<ConfigMap>("ghost", DeleteParams::default()).await;
    cluster.until::<ConfigMap>("both are gone", |all| !left(all, "kept")).await;
}
