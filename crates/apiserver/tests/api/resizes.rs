//! Other resources for pods that run: what their node has and knows, and what quotas and ranges of limits allow.

use serde_json::{Value, json};

use crate::harness::{Answer, Harness};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A server with a node of two processors and a pod on it.
async fn running(features: Value) -> Harness {
    let harness = Harness::new().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    harness.post("/api/v1/namespaces/default/serviceaccounts", account).await.expect(201);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    harness.post("/api/v1/nodes", node).await.expect(201);
    let status = json!({"allocatable": {"cpu": "2", "memory": "1Gi"}, "declaredFeatures": features});
    harness.patch("/api/v1/nodes/n/status", json!({"status": status})).await.expect(200);
    let container = |name: &str| json!({"name": name, "image": "i", "resources": {"requests": {"cpu": "1"}}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"nodeName": "n", "initContainers": [container("i")], "containers": [container("c")]}});
    harness.post(PODS, pod).await.expect(201);
    harness
}

async fn resize(harness: &Harness, list: &str, name: &str, cpu: &str) -> Answer {
    let path = format!("{PODS}/web/resize");
    let patch = json!({"spec": {list: [{"name": name, "resources": {"requests": {"cpu": cpu}}}]}});
    let headers = [("content-type", "application/strategic-merge-patch+json")];
    harness.raw(http::Method::PATCH, &path, &headers, patch.to_string()).await
}

#[tokio::test]
async fn a_pod_gets_no_more_than_its_node_has() {
    let harness = running(json!([])).await;
    resize(&harness, "containers", "c", "2").await.expect(200);
    let why = "pods \"web\" is forbidden: node didn't have enough allocatable resources: cpu, requested: 3000, \
               allocatable: 2000";
    let refused = resize(&harness, "containers", "c", "3").await.refused(403, "Forbidden", why);
    assert_eq!(refused["details"]["causes"][0]["reason"], "NodeCapacity");
    let label = json!({"metadata": {"labels": {"kubernetes.io/os": "windows"}}});
    harness.patch("/api/v1/nodes/n", label).await.expect(200);
    let why = "pod resize is only supported on linux nodes, node \"n\" is \"windows\"";
    let refused = resize(&harness, "containers", "c", "1").await.refused(403, "Forbidden", why);
    assert_eq!(refused["details"]["causes"][0]["reason"], "UnsupportedPlatform");
}

#[tokio::test]
async fn a_pod_changes_as_its_node_knows_how_to() {
    let why = "pods \"web\" is forbidden: pod update requires features InPlacePodVerticalScalingInitContainers which are \
               not available on node \"n\"";
    let harness = running(json!([])).await;
    resize(&harness, "initContainers", "i", "2").await.refused(403, "Forbidden", why);
    let harness = running(json!(["InPlacePodVerticalScalingInitContainers"])).await;
    resize(&harness, "initContainers", "i", "2").await.expect(200);
}

#[tokio::test]
async fn quotas_and_ranges_hold_what_grows() {
    let harness = running(json!([])).await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"requests.cpu": "1500m"}}});
    harness.post("/api/v1/namespaces/default/resourcequotas", quota).await.expect(201);
    let why = "exceeded quota: q, requested: requests.cpu=1, used: requests.cpu=1, limited: requests.cpu=1500m";
    resize(&harness, "containers", "c", "2").await.refused(403, "Forbidden", why);
    resize(&harness, "containers", "c", "1500m").await.expect(200);
    let status = harness.get("/api/v1/namespaces/default/resourcequotas/q").await.expect(200)["status"].clone();
    assert_eq!(status["used"], json!({"requests.cpu": "1500m"}));
    resize(&harness, "containers", "c", "1200m").await.expect(200);

    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"},
        "spec": {"limits": [{"type": "Container", "min": {"cpu": "1"}}]}});
    harness.post("/api/v1/namespaces/default/limitranges", range).await.expect(201);
    let why = "minimum cpu usage per Container is 1, but request is 500m";
    resize(&harness, "containers", "c", "500m").await.refused(403, "Forbidden", why);
}

#[tokio::test]
async fn a_service_that_changes_its_type_needs_a_place_for_it() {
    let harness = Harness::new().await;
    let services = "/api/v1/namespaces/default/services";
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}});
    harness.post(services, service).await.expect(201);
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"services": "1", "services.nodeports": "0"}}});
    harness.post("/api/v1/namespaces/default/resourcequotas", quota).await.expect(201);
    let why =
        "exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=0, limited: services.nodeports=0";
    let node_port = json!({"spec": {"type": "NodePort"}});
    harness.patch(&format!("{services}/a"), node_port).await.refused(403, "Forbidden", why);
    harness.patch(&format!("{services}/a"), json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
}
