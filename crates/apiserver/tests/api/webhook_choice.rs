//! Which webhooks are asked: selectors, conditions, versions, what they are never asked about.

use serde_json::{Value, json};

use crate::harness::Harness;
use crate::hook_server::{HookServer, MAPS, configure, map, path_of, rule, webhook};

/// The names of what a webhook with `more` is asked about, of what `write` does.
async fn names_asked(more: Value, objects: &[Value]) -> Vec<String> {
    let (harness, server) = (Harness::new().await, HookServer::allowing().await);
    configure(&harness, "Validating", "w", json!([webhook("v", server.client_config(), more)])).await;
    for object in objects {
        harness.post(MAPS, object.clone()).await.expect(201);
    }
    server.requests().iter().map(|request| request["name"].as_str().unwrap().to_owned()).collect()
}

fn labelled(name: &str, label: &str) -> Value {
    let mut map = map(name);
    map["metadata"]["labels"] = json!({"l": label});
    map
}

#[tokio::test]
async fn objects_are_selected_by_labels_and_conditions() {
    let objects = [labelled("a", "1"), labelled("b", "2")];
    let check = async |more: Value, expected: &[&str]| assert_eq!(names_asked(more, &objects).await, expected);
    check(json!({}), &["a", "b"]).await;
    check(json!({"objectSelector": {"matchLabels": {"l": "2"}}}), &["b"]).await;
    let condition = |text: &str| json!({"matchConditions": [{"name": "c", "expression": text}]});
    check(condition("object.metadata.name != 'a'"), &["b"]).await;
    check(condition("request.userInfo.username == 'nobody'"), &[]).await;
    check(condition("request.operation == 'CREATE' && oldObject == null"), &["a", "b"]).await;
    check(json!({"rules": [rule("", "v1", "secrets")]}), &[]).await;
}

#[tokio::test]
async fn namespaces_are_selected_by_their_labels() {
    let (harness, server) = (Harness::new().await, HookServer::denying().await);
    let more = json!({"namespaceSelector": {"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]},
        "rules": [rule("", "v1", "*")]});
    let namespace = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    configure(&harness, "Validating", "w", json!([webhook("v", server.client_config(), more)])).await;
    assert!(harness.post(MAPS, map("a")).await.text.contains("not today"));
    // A Namespace's own labels count.
    assert!(harness.post("/api/v1/namespaces", namespace("held", json!({}))).await.text.contains("not today"));
    harness.post("/api/v1/namespaces", namespace("free", json!({"free": "1"}))).await.expect(201);
    assert_eq!(server.requests()[1]["namespace"], "held");
    let free = "/api/v1/namespaces/free/configmaps";
    harness.post(free, map("a")).await.expect(201);
    // What lies in no namespace is always selected.
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}});
    assert!(harness.post("/api/v1/persistentvolumes", volume).await.text.contains("not today"));
}

#[tokio::test]
async fn a_condition_that_goes_wrong_fails_as_the_policy_says() {
    for (policy, code) in [("Fail", 403), ("Ignore", 201)] {
        let (harness, server) = (Harness::new().await, HookServer::denying().await);
        let more =
            json!({"failurePolicy": policy, "matchConditions": [{"name": "c", "expression": "object.nothing == 1"}]});
        configure(&harness, "Validating", "w", json!([webhook("v", server.client_config(), more)])).await;
        let answer = harness.post(MAPS, map("a")).await;
        assert_eq!((answer.code, server.requests().len()), (code, 0), "{}", answer.text);
    }
}

#[tokio::test]
async fn expressions_that_are_none_are_not_taken() {
    let harness = Harness::new().await;
    for kind in ["Mutating", "Validating"] {
        let more = json!({"matchConditions": [{"name": "c", "expression": "... [}"}]});
        let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1",
            "kind": format!("{kind}WebhookConfiguration"), "metadata": {"name": "w"},
            "webhooks": [webhook("v", json!({"url": "https://127.0.0.1:1/"}), more)]});
        let refused = harness.post(&path_of(kind), configuration).await;
        let refused = refused.refused(422, "Invalid", "compilation failed");
        assert_eq!(refused["details"]["causes"][0]["field"], "webhooks[0].matchConditions[0].expression");
    }
}

#[tokio::test]
async fn other_versions_of_a_resource_are_converted_for_who_wants_them() {
    const SCALERS: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let scaler = |name: &str| {
        json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3,
            "targetCPUUtilizationPercentage": 50}})
    };
    for (policy, asked) in [("Equivalent", 1), ("Exact", 0)] {
        let harness = Harness::new().await;
        let server = HookServer::start(|_| {
            crate::hook_server::patching(
                &json!([{"op": "replace", "path": "/spec/metrics/0/resource/target/averageUtilization", "value": 60}]),
            )
        })
        .await;
        let more = json!({"matchPolicy": policy, "rules": [rule("autoscaling", "v2", "horizontalpodautoscalers")]});
        configure(&harness, "Mutating", "m", json!([webhook("m", server.client_config(), more)])).await;
        let created = harness.post(SCALERS, scaler("a")).await.expect(201);
        let requests = server.requests();
        assert_eq!(requests.len(), asked);
        assert_eq!(created["spec"]["targetCPUUtilizationPercentage"], if asked == 1 { 60 } else { 50 });
        if let Some(request) = requests.first() {
            assert_eq!((&request["kind"]["version"], &request["requestKind"]["version"]), (&json!("v2"), &json!("v1")));
            assert_eq!(request["object"]["apiVersion"], "autoscaling/v2");
        }
    }
}

#[tokio::test]
async fn configurations_are_nobodys_business() {
    let harness = Harness::new().await;
    // Nothing listens there.
    let nowhere = json!({"url": "https://127.0.0.1:1/"});
    let all = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    configure(&harness, "Validating", "v", json!([webhook("v", nowhere.clone(), all.clone())])).await;
    configure(&harness, "Mutating", "m", json!([webhook("m", nowhere, all)])).await;
    harness.post(MAPS, map("a")).await.refused(500, "InternalError", "failed calling webhook \"m.a.io\"");
    let labels = json!({"metadata": {"labels": {"x": "y"}}});
    harness.patch(&format!("{}/v", path_of("Validating")), labels).await.expect(200);
    harness.delete(&format!("{}/v", path_of("Validating"))).await.expect(200);
    harness.delete(&path_of("Mutating")).await.expect(200);
    harness.post(MAPS, map("a")).await.expect(201);
}

#[tokio::test]
async fn reviews_are_asked_about_like_objects() {
    let (harness, server) = (Harness::new().await, HookServer::denying().await);
    let more = json!({"rules": [rule("authorization.k8s.io", "v1", "selfsubjectaccessreviews")]});
    configure(&harness, "Validating", "w", json!([webhook("v", server.client_config(), more)])).await;
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let answer = harness.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await;
    assert!(answer.text.contains("denied the request: not today"), "{}", answer.text);
    assert_eq!(server.requests()[0]["object"]["spec"]["resourceAttributes"]["verb"], "get");
}

#[tokio::test]
async fn a_dry_run_is_told() {
    let (harness, server) = (Harness::new().await, HookServer::allowing().await);
    configure(&harness, "Validating", "w", json!([webhook("v", server.client_config(), json!({}))])).await;
    harness.post(&format!("{MAPS}?dryRun=All"), map("a")).await.expect(201);
    assert_eq!(server.requests()[0]["dryRun"], true);
    assert_eq!(server.requests()[0]["options"]["dryRun"], json!(["All"]));
}
