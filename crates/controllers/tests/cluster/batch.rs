//! Jobs and CronJobs.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::harness::{Cluster, LEFT_ALONE, OUTCOME};

fn job(name: &str, outcome: &str, more: Value) -> Value {
    let mut spec = json!({
        "template": {
            "metadata": { "annotations": { OUTCOME: outcome } },
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "main", "image": "x" }] },
        },
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "metadata": { "name": name }, "spec": spec })
}

fn has(job: &Job, type_: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_completes_and_counts_its_pods_once() {
    let cluster = Cluster::start().await;
    cluster.create::<Job>(job("count", "Succeeded", json!({ "completions": 7, "parallelism": 3 }))).await;
    let done = cluster.until_one::<Job>("count", "complete", |job| has(job, "Complete")).await;
    let status = done.status.as_ref().unwrap();
    assert_eq!((status.succeeded, status.failed, status.active), (Some(7), None, None));
    assert!(status.completion_time.is_some());
    let pods = cluster
        .until::<Pod>("7 pods without finalizers", |pods| {
            pods.len() == 7 && pods.iter().all(|pod| pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty))
        })
        .await;
    assert_eq!(pods.len(), 7);
    cluster.until_event("Job completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_indexed_job_runs_every_index() {
    let cluster = Cluster::start().await;
    let more = json!({ "completions": 5, "parallelism": 2, "completionMode": "Indexed" });
    cluster.create::<Job>(job("each", "Succeeded", more)).await;
    let done = cluster.until_one::<Job>("each", "complete", |job| has(job, "Complete")).await;
    assert_eq!(done.status.as_ref().unwrap().completed_indexes.as_deref(), Some("0-4"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_too_often_has_failed() {
    let cluster = Cluster::start().await;
    cluster.create::<Job>(job("bad", "Failed", json!({ "backoffLimit": 0 }))).await;
    let failed = cluster.until_one::<Job>("bad", "failed", |job| has(job, "Failed")).await;
    assert_eq!(failed.status.as_ref().unwrap().failed, Some(1));
    cluster.until_event("Job has reached the specified backoff limit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_job_with_a_ttl_goes_with_its_pods() {
    let cluster = Cluster::start().await;
    cluster.create::<Job>(job("brief", "Succeeded", json!({ "ttlSecondsAfterFinished": 0 }))).await;
    cluster.until_event("Job completed").await;
    cluster.until::<Job>("no job", |jobs| jobs.is_empty()).await;
    cluster.until::<Pod>("no pods", |pods| pods.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_taken_over_counts_and_one_that_is_let_go_does_not() {
    let cluster = Cluster::start().await;
    let mut value = job("keeps", "", json!({}));
    value["spec"]["template"]["metadata"]["annotations"] = json!({ LEFT_ALONE: "" });
    cluster.create::<Job>(value).await;
    let is_tracked = |pod: &Pod| pod.metadata.finalizers.iter().flatten().any(|one| one.ends_with("job-tracking"));
    let is_owned = |pod: &Pod| pod.metadata.owner_references.iter().flatten().any(|owner| owner.name == "keeps");
    let pods = cluster.until::<Pod>("a pod", |pods| pods.len() == 1).await;
    let name = pods[0].metadata.name.clone().unwrap();
    let orphan = json!({ "metadata": { "ownerReferences": null, "finalizers": null } });
    cluster.merge::<Pod>(&name, orphan).await;
    cluster.until_one::<Pod>(&name, "taken over and tracked", |pod| is_owned(pod) && is_tracked(pod)).await;
    let labels = json!({ "metadata": { "labels": null } });
    cluster.merge::<Pod>(&name, labels).await;
    cluster.until_one::<Pod>(&name, "let go", |pod| !is_owned(pod) && !is_tracked(pod)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regress_a_job_whose_pods_wait_for_successors_can_be_deleted() {
    let cluster = Cluster::start().await;
    let more = json!({ "completions": 1, "completionMode": "Indexed", "backoffLimitPerIndex": 5 });
    cluster.create::<Job>(job("stuck", "Failed", more)).await;
    cluster
        .until::<Pod>("a failed pod", |pods| {
            pods.iter().any(|pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Failed")))
        })
        .await;
    cluster.delete::<Job>("stuck", DeleteParams::foreground()).await;
    cluster.until::<Job>("no Job", |jobs| jobs.is_empty()).await;
    cluster.until::<Pod>("no pods", |pods| pods.is_empty()).await;
}
