//! What is counted of controllers at work.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_controllers::Config;
use kedge_metrics::Text;
use serde_json::json;

use super::harness::{Cluster, OUTCOME};

fn shown(cluster: &Cluster) -> String {
    let mut text = Text::default();
    cluster.metrics.write(&mut text);
    text.finish()
}

#[tokio::test(start_paused = true)]
async fn controllers_count_under_upstreams_names() {
    let cluster = Cluster::jumping("2026-01-01T00:00:00Z", Config::default()).await;
    let template = json!({"metadata": {"annotations": {OUTCOME: "Succeeded"}, "labels": {"app": "web"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x"}]}});
    let job = json!({"metadata": {"name": "count"}, "spec": {"completions": 3, "parallelism": 2, "template": template,
        "ttlSecondsAfterFinished": 60}});
    cluster.create::<Job>(job).await;
    cluster
        .create::<Service>(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
        "ports": [{"port": 80}], "trafficDistribution": "PreferClose"}}))
        .await;
    cluster
        .until::<EndpointSlice>("a slice", |slices| {
            slices.iter().any(|slice| slice.metadata.name.as_deref().is_some_and(|name| name.starts_with("web-")))
        })
        .await;
    cluster.until_event("Job completed").await;
    cluster.until::<Job>("no Job", <[_]>::is_empty).await;
    let text = shown(&cluster);
    for line in [
        "job_controller_jobs_finished_total{completion_mode=\"NonIndexed\",result=\"succeeded\",reason=\"CompletionsReached\"} 1",
        "job_controller_job_pods_finished_total{completion_mode=\"NonIndexed\",result=\"succeeded\"} 3",
        "job_controller_job_pods_creation_total{reason=\"new\",status=\"succeeded\"} 3",
        "job_controller_terminated_pods_tracking_finalizer_total{event=\"add\"} 3",
        "job_controller_terminated_pods_tracking_finalizer_total{event=\"delete\"} 3",
        "endpoint_slice_mirroring_controller_num_endpoint_slices 0",
        "ttl_after_finished_controller_job_deletion_duration_seconds_count 1",
        "horizontal_pod_autoscaler_controller_num_horizontal_pod_autoscalers 0",
        "endpoint_slice_controller_services_count_by_traffic_distribution{traffic_distribution=\"PreferClose\"} 1",
    ] {
        assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
    }
    let counted = [
        "workqueue_adds_total{name=\"job\"}",
        "workqueue_depth{name=\"deployment\"}",
        "job_controller_job_syncs_total{completion_mode=\"NonIndexed\",result=\"success\",action=\"pods_created\"}",
        "endpoint_slice_controller_syncs{result=\"success\"}",
        "endpoint_slice_controller_changes{operation=\"create\"}",
    ];
    for name in counted {
        assert!(text.contains(name), "{name} is not in\n{text}");
    }
    // A family is announced once.
    let mut families: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let all = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), all);
}
