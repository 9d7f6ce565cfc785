//! Create, get, list, update, patch, delete.

use http::Method;
use serde_json::{Value, json};

use crate::harness::Harness;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(crate) fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn an_object_lives() {
    let harness = Harness::new().await;
    let created = harness.post(MAPS, config_map("a", json!({"k": "1"}))).await.expect(201);
    let meta = &created["metadata"];
    assert_eq!(
        (&meta["name"], &meta["namespace"], &meta["creationTimestamp"]),
        (&json!("a"), &json!("default"), &json!("2026-01-02T03:04:05Z"))
    );
    assert_eq!(meta["uid"].as_str().unwrap().len(), 36);
    let path = format!("{MAPS}/a");
    assert_eq!(harness.get(&path).await.expect(200), created);
    let mut changed = created.clone();
    changed["data"]["k"] = json!("2");
    let updated = harness.put(&path, changed.clone()).await.expect(200);
    assert_eq!((&updated["data"]["k"], &updated["metadata"]["uid"]), (&json!("2"), &meta["uid"]));
    assert_ne!(updated["metadata"]["resourceVersion"], meta["resourceVersion"]);
    harness.put(&path, changed).await.refused(409, "Conflict",
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again");
    let patched = harness.patch(&path, json!({"data": {"k": null, "l": "3"}})).await.expect(200);
    assert_eq!(patched["data"], json!({"l": "3"}));
    let deleted = harness.delete(&path).await.expect(200);
    assert_eq!((&deleted["status"], &deleted["details"]["uid"]), (&json!("Success"), &meta["uid"]));
    harness.get(&path).await.refused(404, "NotFound", "configmaps \"a\" not found");
}

#[tokio::test]
async fn what_changes_nothing_writes_nothing() {
    let harness = Harness::new().await;
    let created = harness.post(MAPS, config_map("a", json!({"k": "1"}))).await.expect(201);
    let path = format!("{MAPS}/a");
    let version = |value: &Value| value["metadata"]["resourceVersion"].clone();
    let same = harness.put(&path, created.clone()).await.expect(200);
    assert_eq!(version(&same), version(&created));
    let same = harness.patch(&path, json!({})).await.expect(200);
    assert_eq!(version(&same), version(&created));
}

#[tokio::test]
async fn bad_creates_are_refused() {
    let harness = Harness::new().await;
    harness.post(MAPS, config_map("a", json!({}))).await.expect(201);
    harness.post(MAPS, config_map("a", json!({}))).await.refused(
        409,
        "AlreadyExists",
        "configmaps \"a\" already exists",
    );
    harness.post(MAPS, config_map("A_b", json!({}))).await.refused(
        422,
        "Invalid",
        "ConfigMap \"A_b\" is invalid: metadata.name",
    );
    let elsewhere = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "namespace": "x"}});
    harness.post(MAPS, elsewhere).await.refused(400, "BadRequest", "namespace of the provided object does not match");
    harness.post("/api/v1/namespaces/missing/configmaps", config_map("a", json!({}))).await.refused(
        404,
        "NotFound",
        "namespaces \"missing\" not found",
    );
    harness.post(MAPS, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b"}})).await.refused(
        400,
        "BadRequest",
        "Secret in version \"v1\" cannot be handled as a ConfigMap",
    );
    harness.post(MAPS, json!({"apiVersion": "apps/v1", "kind": "ConfigMap", "metadata": {"name": "b"}})).await.refused(
        400,
        "BadRequest",
        "the API version in the data (apps/v1) does not match the expected API version (v1)",
    );
    harness.post(MAPS, json!({"kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"k": 1}})).await.refused(
        400,
        "BadRequest",
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap",
    );
    let broken = harness.raw(Method::POST, MAPS, &[("content-type", "application/json")], "{").await;
    assert_eq!(broken.code, 400, "{}", broken.text);
    let cbor = harness.raw(Method::POST, MAPS, &[("content-type", "application/cbor")], "k8s").await;
    cbor.refused(415, "UnsupportedMediaType", "the body of the request was in an unknown format");
}

#[tokio::test]
async fn paths_that_lead_nowhere() {
    let harness = Harness::new().await;
    for (method, path, code) in [
        (Method::GET, "/api/v1/nonsense", 404),
        (Method::GET, "/apis/nonsense/v1/pods", 404),
        (Method::GET, "/nonsense", 404),
        (Method::POST, "/api/v1/configmaps", 405),
        (Method::PUT, MAPS, 405),
        (Method::GET, "/api/v1/namespaces/default/configmaps/a/status", 404),
        (Method::GET, "/api/v1/namespaces/default/nodes", 404),
    ] {
        let answer = harness.call(method.clone(), path, Value::Null).await;
        assert_eq!(answer.code, code, "{method} {path}: {}", answer.text);
    }
}

#[tokio::test]
async fn names_are_generated() {
    let harness = Harness::new().await;
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"generateName": "web-"}});
    let created = harness.post(MAPS, object).await.expect(201);
    let name = created["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    harness.post(MAPS, json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {}})).await.refused(
        422,
        "Invalid",
        "name or generateName is required",
    );
}

#[tokio::test]
async fn dry_runs_leave_nothing() {
    let harness = Harness::new().await;
    let revision = |harness: &Harness| kedge_store::Store::revision(&*harness.store);
    let before = revision(&harness);
    let made = harness.post(&format!("{MAPS}?dryRun=All"), config_map("a", json!({"k": "1"}))).await.expect(201);
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["resourceVersion"].is_null());
    assert_eq!(revision(&harness), before);
    harness.get(&format!("{MAPS}/a")).await.expect(404);
    let created = harness.post(MAPS, config_map("a", json!({"k": "1"}))).await.expect(201);
    let before = revision(&harness);
    harness.post(&format!("{MAPS}?dryRun=All"), config_map("a", json!({}))).await.expect(409);
    let patched = harness.patch(&format!("{MAPS}/a?dryRun=All"), json!({"data": {"k": "2"}})).await.expect(200);
    assert_eq!(patched["data"]["k"], "2");
    harness.delete(&format!("{MAPS}/a?dryRun=All")).await.expect(200);
    assert_eq!(harness.get(&format!("{MAPS}/a")).await.expect(200), created);
    assert_eq!(revision(&harness), before);
    harness.post(&format!("{MAPS}?dryRun=Some"), config_map("b", json!({}))).await.refused(422, "Invalid", "dryRun");
}

#[tokio::test]
async fn protobuf_is_read_and_written() {
    let harness = Harness::new().await;
    let protobuf = kedge_schema::PROTOBUF;
    let body = kedge_schema::encode_protobuf(&config_map("a", json!({"k": "1"}))).unwrap();
    let created = harness.raw(Method::POST, MAPS, &[("content-type", protobuf)], body).await.expect(201);
    assert_eq!(created["data"], json!({"k": "1"}));
    let accepting = |path: String, accept: &'static str| {
        let harness = &harness;
        async move { harness.raw(Method::GET, &path, &[("accept", accept)], "").await }
    };
    let both = accepting(format!("{MAPS}/a"), "application/vnd.kubernetes.protobuf,application/json").await;
    assert_eq!(both.headers["content-type"], protobuf, "what is named first is what they get");
    let json_first = accepting(format!("{MAPS}/a"), "application/json,application/vnd.kubernetes.protobuf").await;
    assert_eq!(json_first.expect(200), created);
    let without = "/apis/apiregistration.k8s.io/v1/apiservices".to_owned();
    let json =
        accepting(without, "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json").await;
    assert_eq!(json.expect(200)["kind"], "APIServiceList", "tables have no such form");
    let one = harness
        .send(None, crate::harness::request(Method::GET, &format!("{MAPS}/a"), &[("accept", protobuf)], ""))
        .await;
    assert_eq!(one.headers()["content-type"], protobuf);
    let bytes = http_body_util::BodyExt::collect(one.into_body()).await.unwrap().to_bytes();
    assert_eq!(bytes, kedge_schema::encode_protobuf(&created).unwrap());
    let list = accepting(MAPS.to_owned(), kedge_schema::PROTOBUF).await;
    assert!(list.code == 200 && list.text.starts_with("k8s\0"));
    let missing = accepting(format!("{MAPS}/b"), kedge_schema::PROTOBUF).await;
    assert!(missing.code == 404 && missing.headers["content-type"] == protobuf && missing.text.starts_with("k8s\0"));
}
