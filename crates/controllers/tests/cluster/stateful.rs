//! StatefulSets and their volumes, budgets and quotas.

use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;

use super::harness::{Cluster, object, template};

fn is_done(set: &StatefulSet, replicas: i32) -> bool {
    set.status.as_ref().is_some_and(|status| {
        status.observed_generation == set.metadata.generation
            && status.replicas == replicas
            && status.ready_replicas == Some(replicas)
            && status.updated_replicas == Some(replicas)
            && status.current_revision == status.update_revision
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_has_names_claims_and_an_order() {
    let cluster = Cluster::start().await;
    let volumes = Api::<PersistentVolume>::all(cluster.client.clone());
    for name in ["v0", "v1"] {
        let volume = object(json!({
            "metadata": { "name": name },
            "spec": {
                "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
                "hostPath": { "path": format!("/srv/{name}") },
            },
        }));
        volumes.create(&PostParams::default(), &volume).await.unwrap();
    }
    cluster
        .create::<StatefulSet>(json!({
            "metadata": { "name": "db" },
            "spec": {
                "replicas": 2, "serviceName": "db", "selector": { "matchLabels": { "app": "web" } },
                "template": template("v1"),
                "volumeClaimTemplates": [{
                    "metadata": { "name": "data" },
                    "spec": {
                        "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
                        "resources": { "requests": { "storage": "1Gi" } },
                    },
                }],
            },
        }))
        .await;
    cluster.until_one::<StatefulSet>("db", "2 ready", |set| is_done(set, 2)).await;
    let pods = cluster.until::<Pod>("2 pods", |pods| pods.len() == 2).await;
    let names: Vec<&str> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
    assert_eq!(names, ["db-0", "db-1"]);
    let claims = cluster
        .until::<PersistentVolumeClaim>("2 bound claims", |claims| {
            let phase = |claim: &PersistentVolumeClaim| claim.status.as_ref().and_then(|status| status.phase.clone());
            claims.len() == 2 && claims.iter().all(|claim| phase(claim).as_deref() == Some("Bound"))
        })
        .await;
    assert_eq!(claims[0].metadata.name.as_deref(), Some("data-db-0"));

    cluster.merge::<StatefulSet>("db", json!({ "spec": { "template": template("v2") } })).await;
    cluster
        .until_one::<StatefulSet>("db", "updated", |set| is_done(set, 2) && set.metadata.generation == Some(2))
        .await;
    let pods = cluster.until::<Pod>("2 pods", |pods| pods.len() == 2).await;
    assert!(pods.iter().all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("v2")));

    cluster.merge::<StatefulSet>("db", json!({ "spec": { "replicas": 0 } })).await;
    cluster.until::<Pod>("no pods", |pods| pods.is_empty()).await;
    // A claim without a pod can go; its volume is released.
    cluster.delete::<PersistentVolumeClaim>("data-db-1", DeleteParams::default()).await;
    cluster
        .until::<PersistentVolume>("a released volume", |volumes| {
            volumes
                .iter()
                .any(|volume| volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Released"))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn budgets_and_quotas_count_pods() {
    let cluster = Cluster::start().await;
    cluster
        .create::<PodDisruptionBudget>(json!({
            "metadata": { "name": "web" },
            "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "app": "web" } } },
        }))
        .await;
    cluster
        .create::<ResourceQuota>(json!({
            "metadata": { "name": "all" },
            "spec": { "hard": { "pods": "10", "count/replicasets.apps": "5" } },
        }))
        .await;
    cluster
        .create::<ReplicaSet>(json!({
            "metadata": { "name": "web" },
            "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "web" } }, "template": template("v1") },
        }))
        .await;
    let budget = cluster
        .until_one::<PodDisruptionBudget>("web", "3 healthy", |budget| {
            budget.status.as_ref().and_then(|status| status.current_healthy) == Some(3)
        })
        .await;
    let status = budget.status.as_ref().unwrap();
    assert_eq!((status.desired_healthy, status.expected_pods, status.disruptions_allowed), (Some(2), Some(3), Some(1)));
    cluster
        .until_one::<ResourceQuota>("all", "3 pods, 1 set", |quota| {
            let used = quota.status.as_ref().and_then(|status| status.used.as_ref());
            used.is_some_and(|used| used["pods"].0 == "3" && used["count/replicasets.apps"].0 == "1")
        })
        .await;
}
