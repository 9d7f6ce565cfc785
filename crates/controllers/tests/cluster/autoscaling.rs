//! HorizontalPodAutoscalers against metrics APIs that say what the test wants.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kedge_apiserver::{LocalApi, LocalHandler, LocalResource};
use kedge_controllers::{AutoscalerConfig, Config};
use serde_json::{Value, json};
use tower::service_fn;

use super::harness::Cluster;

fn quick() -> Config {
    let autoscaler = AutoscalerConfig {
        sync_period: Duration::from_millis(100),
        cpu_initialization_period: Duration::ZERO,
        ..AutoscalerConfig::default()
    };
    Config { autoscaler, ..Config::default() }
}

async fn mount(
    cluster: &Cluster,
    group: &'static str,
    resource: &'static str,
    kind: &'static str,
    answer: impl Fn() -> Vec<Value> + Clone + Send + Sync + 'static,
) {
    let handler = LocalHandler::new(service_fn(move |_: Request<Bytes>| {
        let list = json!({ "kind": format!("{kind}List"), "apiVersion": format!("{group}/v1beta1"), "metadata": {},
            "items": answer() });
        async move { Ok::<_, Infallible>(Response::new(Bytes::from(list.to_string()))) }
    }));
    let resource = LocalResource { resource, singular: "", kind, namespaced: true, verbs: &["get", "list"] };
    let api = LocalApi {
        group,
        version: "v1beta1",
        group_priority_minimum: 100,
        version_priority: 100,
        resources: vec![resource],
        objects: Vec::new(),
        handler,
    };
    cluster.server.mount(api).await.unwrap();
}

/// Every pod uses as many thousandths of a core as the number says.
async fn serve_cpu(cluster: &Cluster) -> Arc<AtomicI64> {
    let used = Arc::new(AtomicI64::new(100));
    let (pods, shown) = (cluster.informer::<Pod>(), used.clone());
    let answer = move || {
        let usage = json!({ "cpu": format!("{}m", shown.load(Ordering::Relaxed)), "memory": "1Mi" });
        let figures = |pod: Arc<Pod>| {
            json!({ "metadata": { "name": pod.metadata.name, "namespace": "default" }, "window": "10s",
                "timestamp": "2026-11-21T20:00:00Z", "containers": [{ "name": "main", "usage": usage }] })
        };
        pods.list().into_iter().map(figures).collect()
    };
    mount(cluster, "metrics.k8s.io", "pods", "PodMetrics", answer).await;
    used
}

async fn deploy(cluster: &Cluster, name: &str, replicas: i32) {
    let container = json!({ "name": "main", "image": "v1", "resources": { "requests": { "cpu": "100m" } } });
    let spec = json!({
        "replicas": replicas,
        "selector": { "matchLabels": { "app": name } },
        "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": [container] } },
    });
    cluster.create::<Deployment>(json!({ "metadata": { "name": name }, "spec": spec })).await;
}

fn autoscaler(name: &str, target: &str, metric: Value, behavior: Value) -> Value {
    json!({ "metadata": { "name": name }, "spec": {
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": target },
        "minReplicas": 1, "maxReplicas": 5, "metrics": [metric], "behavior": behavior } })
}

fn utilization(resource: &str, percent: i32) -> Value {
    json!({ "type": "Resource", "resource": { "name": resource,
        "target": { "type": "Utilization", "averageUtilization": percent } } })
}

/// A condition as `status reason: message`.
fn said(autoscaler: &HorizontalPodAutoscaler, type_: &str) -> String {
    let conditions = autoscaler.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let found = conditions.into_iter().find(|condition| condition.type_ == type_).map(|condition| {
        let (reason, message) = (condition.reason.as_deref(), condition.message.as_deref());
        format!("{} {}: {}", condition.status, reason.unwrap_or_default(), message.unwrap_or_default())
    });
    found.unwrap_or_default()
}

async fn replicas(cluster: &Cluster, name: &str, wanted: i32) {
    cluster
        .until_one::<Deployment>(name, &format!("{wanted} replicas"), |deployment| {
            deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(wanted)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_follow_the_load_up_and_down() {
    let cluster = Cluster::with(quick()).await;
    let used = serve_cpu(&cluster).await;
    deploy(&cluster, "web", 1).await;
    let behavior = json!({ "scaleDown": { "stabilizationWindowSeconds": 0 } });
    cluster.create::<HorizontalPodAutoscaler>(autoscaler("web", "web", utilization("cpu", 50), behavior)).await;
    replicas(&cluster, "web", 5).await;
    cluster
        .until_one::<HorizontalPodAutoscaler>("web", "limited", |it| {
            said(it, "ScalingLimited")
                == "True TooManyReplicas: the desired replica count is more than the maximum replica count"
        })
        .await;
    let text = "New size: 2; reason: cpu resource utilization (percentage of request) above target";
    cluster.until_event(text).await;

    used.store(10, Ordering::Relaxed);
    replicas(&cluster, "web", 1).await;
    cluster.until_event("New size: 1; reason: All metrics below target").await;
    let done = cluster
        .until_one::<HorizontalPodAutoscaler>("web", "at rest", |it| {
            it.status.as_ref().is_some_and(|status| status.current_replicas == Some(1) && status.desired_replicas == 1)
                && said(it, "ScalingActive").starts_with("True ValidMetricFound: the HPA was able to successfully")
                && said(it, "AbleToScale") == "True ReadyForNewScale: recommended size matches current size"
        })
        .await;
    let status = done.status.as_ref().unwrap();
    assert!(status.last_scale_time.is_some());
    let current = &status.current_metrics.as_ref().unwrap()[0].resource.as_ref().unwrap().current;
    let average = current.average_value.as_ref().map(|amount| amount.0.as_str());
    assert_eq!((current.average_utilization, average), (Some(10), Some("10m")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_figure_from_outside_decides_where_it_is_served() {
    let cluster = Cluster::with(quick()).await;
    deploy(&cluster, "worker", 1).await;
    let target = json!({ "type": "AverageValue", "averageValue": "10" });
    let metric = json!({ "type": "External", "external": { "metric": { "name": "queue" }, "target": target } });
    cluster.create::<HorizontalPodAutoscaler>(autoscaler("worker", "worker", metric, json!(null))).await;
    let text = "False FailedGetExternalMetric: the HPA was unable to compute the replica count: unable to get external \
                metric default/queue/nil: unable to fetch metrics from external metrics API: the server could not find \
                the requested resource (get queue.external.metrics.k8s.io)";
    cluster.until_one::<HorizontalPodAutoscaler>("worker", "no such API", |it| said(it, "ScalingActive") == text).await;
    cluster
        .until_event(
            "invalid metrics (1 invalid out of 1), first error is: failed to get queue external metric value: failed \
             to get queue external metric: unable to get external metric default/queue/nil",
        )
        .await;
    let answer = || {
        let value = |amount: &str| json!({ "metricName": "queue", "metricLabels": {}, "timestamp": "2026-11-21T20:00:00Z", "value": amount });
        vec![value("25"), value("5")]
    };
    mount(&cluster, "external.metrics.k8s.io", "queue", "ExternalMetricValue", answer).await;
    replicas(&cluster, "worker", 3).await;
    cluster.until_event("New size: 3; reason: external metric queue(nil) above target").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hinders_is_said_in_upstreams_words() {
    let cluster = Cluster::with(quick()).await;
    serve_cpu(&cluster).await;
    for (name, replicas) in [("web", 2), ("idle", 0), ("shared", 1), ("many", 7)] {
        deploy(&cluster, name, replicas).await;
    }
    let container = json!({ "type": "ContainerResource", "containerResource": { "name": "cpu", "container": "side",
        "target": { "type": "Utilization", "averageUtilization": 50 } } });
    let pods = json!({ "type": "Pods", "pods": { "metric": { "name": "qps" },
        "target": { "type": "AverageValue", "averageValue": "10" } } });
    let cpu = || utilization("cpu", 50);
    let cases = [
        (
            "absent",
            "none",
            cpu(),
            "AbleToScale",
            "False FailedGetScale: the HPA controller was unable to get the target's current scale: deployments.apps \
             \"none\" not found",
        ),
        (
            "zero",
            "idle",
            cpu(),
            "ScalingActive",
            "False ScalingDisabled: scaling is disabled since the replica count of the target is zero",
        ),
        (
            "memory",
            "web",
            utilization("memory", 50),
            "ScalingActive",
            "False FailedGetResourceMetric: the HPA was unable to compute the replica count: failed to get memory \
             utilization: missing request for memory in container main of Pod web-",
        ),
        (
            "shared-a",
            "shared",
            cpu(),
            "ScalingActive",
            "False AmbiguousSelector: pods by selector app=shared are controlled by multiple HPAs: [{shared-a default} \
             {shared-b default}]",
        ),
        ("shared-b", "shared", cpu(), "ScalingActive", "False AmbiguousSelector: pods by selector app=shared"),
        ("above", "many", pods.clone(), "AbleToScale", "True SucceededGetScale: the HPA controller was able to"),
    ];
    for (name, target, metric, ..) in &cases {
        let object = autoscaler(name, target, metric.clone(), json!(null));
        cluster.create::<HorizontalPodAutoscaler>(object).await;
    }
    for (name, _, _, type_, text) in &cases {
        cluster.until_one::<HorizontalPodAutoscaler>(name, text, |it| said(it, type_).starts_with(text)).await;
    }
    replicas(&cluster, "many", 5).await;
    cluster.until_event("New size: 5; reason: Current number of replicas above Spec.MaxReplicas").await;
    let text = "False FailedGetPodsMetric: the HPA was unable to compute the replica count: unable to get metric qps: \
                unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered";
    cluster.until_one::<HorizontalPodAutoscaler>("above", text, |it| said(it, "ScalingActive") == text).await;

    deploy(&cluster, "lone", 1).await;
    cluster.create::<HorizontalPodAutoscaler>(autoscaler("lone", "lone", container, json!(null))).await;
    let text = "False FailedGetContainerResourceMetric: the HPA was unable to compute the replica count: failed to get \
                cpu utilization: did not receive metrics for targeted pods (pods might be unready)";
    cluster.until_one::<HorizontalPodAutoscaler>("lone", text, |it| said(it, "ScalingActive") == text).await;
    let mut strange = autoscaler("strange", "web", cpu(), json!(null));
    strange["spec"]["scaleTargetRef"]["kind"] = json!("Foo");
    cluster.create::<HorizontalPodAutoscaler>(strange).await;
    cluster.until_event("no matches for kind \"Foo\" in group \"apps\"").await;
}
