//! What workloads see of simulated nodes.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kedge_simulate::{EXIT_CODE, READY, RESTARTS, RUN_TIME};
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};

use super::harness::Cluster;

/// A cluster with three simulated nodes, in which pods can be made.
async fn cluster() -> (Cluster, tokio_util::sync::DropGuard) {
    let cluster = Cluster::start().await;
    let simulation = cluster.simulate("nodes=3");
    cluster.until_pods_have_an_account().await;
    (cluster, simulation)
}

fn template(annotations: Value, restart_policy: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}, "annotations": annotations},
        "spec": {"restartPolicy": restart_policy, "containers": [{"name": "main", "image": "example.com/i"}]},
    })
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_rolls_and_its_pods_go() {
    let (cluster, _simulation) = cluster().await;
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 6,
        "selector": {"matchLabels": {"app": "web"}}, "template": template(json!({}), "Always")}});
    cluster.create::<Deployment>(deployment).await;
    let is_available = |all: &[Arc<Deployment>]| {
        all.iter().any(|one| {
            let status = one.status.as_ref().unwrap();
            status.observed_generation == one.metadata.generation
                && status.updated_replicas == Some(6)
                && status.available_replicas == Some(6)
                && status.replicas == Some(6)
        })
    };
    cluster.until::<Deployment>("all replicas are available", is_available).await;
    cluster.annotate(cluster.api::<Deployment>(), "web", "unrelated", "true").await;
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}});
    let (parameters, patch) = (kube::api::PatchParams::default(), kube::api::Patch::Merge(patch));
    cluster.api::<Deployment>().patch("web", &parameters, &patch).await.unwrap();
    cluster.until::<Deployment>("the update is through", is_available).await;
    cluster.until::<Pod>("old pods are gone", |pods| pods.len() == 6).await;
    cluster.api::<Deployment>().delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until::<Pod>("all pods are gone", <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_complete_and_fail_as_their_pods_are_told() {
    let (cluster, _simulation) = cluster().await;
    let job = |name: &str, annotations: Value| {
        json!({"metadata": {"name": name}, "spec": {"completions": 4, "parallelism": 2, "backoffLimit": 0,
            "template": template(annotations, "Never")}})
    };
    cluster.create::<Job>(job("good", json!({}))).await;
    cluster.create::<Job>(job("bad", json!({EXIT_CODE: "3", RUN_TIME: "1s"}))).await;
    let has = |jobs: &[Arc<Job>], name: &str, condition: &str| {
        let job = jobs.iter().find(|job| job.metadata.name.as_deref() == Some(name));
        let conditions = job.and_then(|job| job.status.as_ref()?.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|one| one.type_ == condition && one.status == "True")
    };
    cluster
        .until::<Job>("one is complete and one has failed", |jobs| {
            has(jobs, "good", "Complete") && has(jobs, "bad", "Failed")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_steer_a_running_pod() {
    let (cluster, _simulation) = cluster().await;
    let mut pod = template(json!({}), "Always");
    pod["metadata"]["name"] = json!("p");
    cluster.create::<Pod>(pod).await;
    let until = async |what: &str, holds: &dyn Fn(&Pod) -> bool| {
        cluster.until::<Pod>(what, |pods| pods.iter().any(|pod| holds(pod))).await;
    };
    let first = |pod: &Pod| pod.status.as_ref().and_then(|status| status.container_statuses.clone()?.pop());
    until("it runs", &|pod| phase(pod) == "Running" && first(pod).is_some_and(|main| main.ready)).await;
    cluster.annotate(cluster.api::<Pod>(), "p", READY, "false").await;
    until("it is not ready", &|pod| first(pod).is_some_and(|main| !main.ready)).await;
    cluster.annotate(cluster.api::<Pod>(), "p", RESTARTS, "4").await;
    until("it was restarted", &|pod| first(pod).is_some_and(|main| main.restart_count == 4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_can_stay_as_they_were_bound() {
    let cluster = Cluster::start().await;
    let _simulation = cluster.simulate("nodes=1,pods=3,start-pods=false");
    cluster.until::<Pod>("they are there", |pods| pods.len() == 3).await;
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), kedge_simulate::FILLER_NAMESPACE);
    pods.delete("filler-0000001", &DeleteParams::default()).await.unwrap();
    let left = cluster.until::<Pod>("one is gone", |pods| pods.len() == 2).await;
    assert!(left.iter().all(|pod| phase(pod) == "Pending"));
}
