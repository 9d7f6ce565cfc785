//! Finalizers, preconditions, propagation, collections, namespaces.

use http::Method;
use serde_json::{Value, json};

use crate::crud::config_map;
use crate::harness::Harness;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn options(fields: Value) -> Value {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    options.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    options
}

#[tokio::test]
async fn finalizers_keep_an_object() {
    let harness = Harness::new().await;
    let mut map = config_map("a", json!({}));
    map["metadata"]["finalizers"] = json!(["example.com/keep"]);
    harness.post(MAPS, map).await.expect(201);
    let path = format!("{MAPS}/a");
    let marked = harness.delete(&path).await.expect(200);
    assert_eq!(
        (&marked["kind"], &marked["metadata"]["deletionTimestamp"]),
        (&json!("ConfigMap"), &json!("2026-01-02T03:04:05Z"))
    );
    let again = harness.delete(&path).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"]);
    harness.patch(&path, json!({"metadata": {"finalizers": ["example.com/other"]}})).await.refused(
        422,
        "Invalid",
        "metadata.finalizers",
    );
    harness.patch(&path, json!({"metadata": {"finalizers": null}})).await.expect(200);
    harness.get(&path).await.expect(404);
}

#[tokio::test]
async fn preconditions_are_checked() {
    let harness = Harness::new().await;
    let created = harness.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let path = format!("{MAPS}/a");
    let refused = harness.call(Method::DELETE, &path, options(json!({"preconditions": {"uid": "x"}}))).await;
    refused.refused(409, "Conflict", "Precondition failed: UID in precondition: x, UID in object meta: ");
    let refused =
        harness.call(Method::DELETE, &path, options(json!({"preconditions": {"resourceVersion": "1"}}))).await;
    refused.refused(409, "Conflict", "Precondition failed: ResourceVersion in precondition: 1");
    let refused = harness.call(Method::DELETE, &path, options(json!({"propagationPolicy": "Sometimes"}))).await;
    refused.refused(422, "Invalid", "propagationPolicy: Unsupported value: \"Sometimes\"");
    let good =
        options(json!({"preconditions": {"uid": created["metadata"]["uid"]}, "propagationPolicy": "Foreground"}));
    let marked = harness.call(Method::DELETE, &path, good).await.expect(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn a_collection_is_deleted_as_selected() {
    let harness = Harness::new().await;
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut map = config_map(name, json!({}));
        map["metadata"]["labels"] = json!({"app": app});
        harness.post(MAPS, map).await.expect(201);
    }
    let deleted = harness.delete(&format!("{MAPS}?labelSelector=app%3Dx")).await.expect(200);
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = harness.get(MAPS).await.expect(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    harness.delete("/api/v1/configmaps").await.expect(405);
}

#[tokio::test]
async fn a_namespace_ends_when_it_is_finalized() {
    let harness = Harness::new().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
    let created = harness.post("/api/v1/namespaces", namespace).await.expect(201);
    assert_eq!(
        (&created["status"]["phase"], &created["spec"]["finalizers"]),
        (&json!("Active"), &json!(["kubernetes"]))
    );
    assert_eq!(created["metadata"]["labels"]["kubernetes.io/metadata.name"], "a");
    let marked = harness.delete("/api/v1/namespaces/a").await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let refused = harness.post("/api/v1/namespaces/a/configmaps", config_map("m", json!({}))).await;
    refused.refused(
        403,
        "Forbidden",
        "configmaps \"m\" is forbidden: unable to create new content in namespace a because it is being terminated",
    );
    let mut finalized = marked.clone();
    finalized["spec"]["finalizers"] = json!([]);
    harness.put("/api/v1/namespaces/a/finalize", finalized).await.expect(200);
    harness.get("/api/v1/namespaces/a").await.expect(404);
    harness.delete("/api/v1/namespaces/kube-system").await.refused(
        403,
        "Forbidden",
        "this namespace may not be deleted",
    );
}
