//! PodSecurity: what the labels of a namespace ask of its pods.

use http::Method;
use kedge_apiserver::{Config, PluginConfigurations};
use kedge_meta::UserInfo;
use serde_json::{Value, json};

use crate::harness::Harness;

async fn namespace(harness: &Harness, labels: Value) {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": labels}});
    harness.post("/api/v1/namespaces", object).await.expect(201);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    harness.post("/api/v1/namespaces/n/serviceaccounts", account).await.expect(201);
}

fn pod(name: &str, host_network: bool) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "hostNetwork": host_network, "containers": [{"name": "a", "image": "i"}]}})
}

const PODS: &str = "/api/v1/namespaces/n/pods";
const LEVEL: &str = "pod-security.kubernetes.io/enforce";

#[tokio::test]
async fn pods_keep_to_the_level_of_their_namespace() {
    let harness = Harness::new().await;
    namespace(&harness, json!({LEVEL: "baseline", "pod-security.kubernetes.io/warn": "restricted"})).await;
    let text = "pods \"a\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    harness.post(PODS, pod("a", true)).await.refused(403, "Forbidden", text);
    let created = harness.post(PODS, pod("b", false)).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let warning = "would violate PodSecurity \\\"restricted:latest\\\": allowPrivilegeEscalation != false";
    assert!(created.warnings()[0].contains(warning), "{:?}", created.warnings());
    // Only what changes images is looked at again.
    let labelled = harness.patch(&format!("{PODS}/b"), json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert!(labelled.code == 200 && labelled.warnings().is_empty(), "{labelled:?}");
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i", "securityContext": {"privileged": true}}]}});
    let headers = [("content-type", "application/strategic-merge-patch+json")];
    let refused =
        harness.raw(Method::PATCH, &format!("{PODS}/b/ephemeralcontainers"), &headers, debug.to_string()).await;
    refused.refused(403, "Forbidden", "privileged (container \"d\" must not set securityContext.privileged=true)");
    // What makes pods is warned of by the same rules, and not refused.
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("x", true)["spec"]});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let created = harness.post("/apis/apps/v1/namespaces/n/deployments", deployment).await;
    assert_eq!(created.code, 201);
    assert!(created.warnings().iter().any(|warning| warning.contains("host namespaces (hostNetwork=true)")));
}

#[tokio::test]
async fn labels_are_checked_and_stricter_ones_name_who_breaks_them() {
    let harness = Harness::new().await;
    let bad = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "m", "labels": {LEVEL: "strict"}}});
    let text = "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted";
    harness.post("/api/v1/namespaces", bad).await.refused(422, "Invalid", text);
    namespace(&harness, json!({})).await;
    for name in ["b", "a"] {
        harness.post(PODS, pod(name, true)).await.expect(201);
    }
    let stricter =
        json!({"metadata": {"labels": {LEVEL: "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30"}}});
    let labelled = harness.patch("/api/v1/namespaces/n", stricter).await;
    assert_eq!(labelled.code, 200);
    let warnings = labelled.warnings();
    assert!(
        warnings[0].contains(
            "existing pods in namespace \\\"n\\\" violate the new PodSecurity enforce level \\\"baseline:v1.30\\\""
        ),
        "{warnings:?}"
    );
    assert!(warnings[1].contains("a (and 1 other pod): host namespaces"), "{warnings:?}");
    let laxer = json!({"metadata": {"labels": {LEVEL: "privileged"}}});
    let labelled = harness.patch("/api/v1/namespaces/n", laxer).await;
    assert!(labelled.code == 200 && labelled.warnings().is_empty());
}

#[tokio::test]
async fn images_are_always_pulled_where_that_is_on() {
    let config = Config { enable_admission_plugins: vec!["AlwaysPullImages".to_owned()], ..Config::default() };
    let harness = Harness::with(config).await;
    namespace(&harness, json!({})).await;
    let mut never = pod("a", false);
    never["spec"]["containers"][0]["imagePullPolicy"] = json!("Never");
    let created = harness.post(PODS, never).await.expect(201);
    assert_eq!(created["spec"]["containers"][0]["imagePullPolicy"], "Always");
}

/// What stands in a file of `--admission-control-config-file`.
fn configured(defaults: Value, exemptions: Value) -> Config {
    let configuration = json!({"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
        "defaults": defaults, "exemptions": exemptions});
    let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [{"name": "PodSecurity", "configuration": configuration}]});
    let read = PluginConfigurations::read(&file.to_string(), &|_| Ok(String::new())).unwrap();
    Config { pod_security: read.pod_security, ..Config::default() }
}

#[tokio::test]
async fn a_file_says_what_counts_without_labels_and_who_is_exempt() {
    let exemptions = json!({"namespaces": ["free"], "usernames": ["installer"], "runtimeClasses": ["kata"]});
    let harness = Harness::with(configured(json!({"enforce": "baseline"}), exemptions)).await;
    namespace(&harness, json!({})).await;
    let text = "violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    harness.post(PODS, pod("a", true)).await.refused(403, "Forbidden", text);

    let installer = UserInfo::authenticated("installer", ["system:masters"]);
    harness.call_as(installer, Method::POST, PODS, pod("b", true)).await.expect(201);
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "kata"}, "handler": "kata"});
    harness.post("/apis/node.k8s.io/v1/runtimeclasses", class).await.expect(201);
    let mut isolated = pod("c", true);
    isolated["spec"]["runtimeClassName"] = json!("kata");
    harness.post(PODS, isolated).await.expect(201);

    let labels = json!({LEVEL: "restricted"});
    let free = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "free", "labels": labels}});
    let created = harness.post("/api/v1/namespaces", free).await;
    let warning = "namespace \\\"free\\\" is exempt from Pod Security, and the policy (enforce=restricted:latest) will be ignored";
    assert!(created.code == 201 && created.warnings()[0].contains(warning), "{:?}", created.warnings());
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    harness.post("/api/v1/namespaces/free/serviceaccounts", account).await.expect(201);
    harness.post("/api/v1/namespaces/free/pods", pod("d", true)).await.expect(201);
}
