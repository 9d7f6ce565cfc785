//! Patches, server-side apply and field validation.

use http::Method;
use serde_json::{Value, json};

use crate::crud::config_map;
use crate::harness::{Answer, Harness};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn send(harness: &Harness, kind: &str, path: &str, patch: Value) -> Answer {
    let content_type = match kind {
        "apply" => "application/apply-patch+yaml".to_owned(),
        kind => format!("application/{kind}-patch+json"),
    };
    harness.raw(Method::PATCH, path, &[("content-type", &content_type)], patch.to_string()).await
}

#[tokio::test]
async fn every_kind_of_patch() {
    let harness = Harness::new().await;
    harness.post(MAPS, config_map("a", json!({"k": "1"}))).await.expect(201);
    let path = format!("{MAPS}/a");
    for (kind, patch, expected) in [
        ("json", json!([{"op": "replace", "path": "/data/k", "value": "2"}]), json!({"k": "2"})),
        ("merge", json!({"data": {"l": "3"}}), json!({"k": "2", "l": "3"})),
        ("strategic-merge", json!({"data": {"k": null}}), json!({"l": "3"})),
    ] {
        assert_eq!(send(&harness, kind, &path, patch).await.expect(200)["data"], expected, "{kind}");
    }
    let bad = send(&harness, "json", &path, json!([{"op": "remove", "path": "/data/nothing"}])).await;
    bad.refused(422, "Invalid", "");
    let unknown = harness.raw(Method::PATCH, &path, &[("content-type", "text/plain")], "{}").await;
    unknown.refused(415, "UnsupportedMediaType", "application/json-patch+json, application/merge-patch+json");
    let stale = send(&harness, "merge", &path, json!({"metadata": {"resourceVersion": "1"}, "data": {"x": "1"}})).await;
    stale.refused(409, "Conflict", "the object has been modified");
    let renamed = send(&harness, "merge", &path, json!({"metadata": {"name": "b"}})).await;
    renamed.refused(400, "BadRequest", "the name of the object (b) does not match the name on the URL (a)");
    send(&harness, "merge", &format!("{MAPS}/missing"), json!({})).await.expect(404);
}

#[tokio::test]
async fn applied_fields_have_owners() {
    let harness = Harness::new().await;
    let path = format!("{MAPS}/a");
    let applied = |manager: &str, force: &str| format!("{path}?fieldManager={manager}{force}");
    send(&harness, "apply", &path, config_map("a", json!({"k": "1"}))).await.refused(
        422,
        "Invalid",
        "fieldManager: Required value: is required for apply patch",
    );
    let created = send(&harness, "apply", &applied("one", ""), config_map("a", json!({"k": "1"}))).await.expect(201);
    assert_eq!(
        (&created["metadata"]["managedFields"][0]["manager"], &created["metadata"]["managedFields"][0]["operation"]),
        (&json!("one"), &json!("Apply"))
    );
    let same = send(&harness, "apply", &applied("one", ""), config_map("a", json!({"k": "1"}))).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    let conflict = send(&harness, "apply", &applied("two", ""), config_map("a", json!({"k": "2"}))).await;
    conflict.refused(409, "Conflict", "Apply failed with 1 conflict: conflict with \"one\"");
    let forced =
        send(&harness, "apply", &applied("two", "&force=true"), config_map("a", json!({"k": "2"}))).await.expect(200);
    assert_eq!(forced["data"]["k"], "2");
    send(&harness, "merge", &format!("{path}?force=true"), json!({})).await.refused(
        422,
        "Invalid",
        "force: Forbidden: may not be specified for non-apply patch",
    );
}

#[tokio::test]
async fn unknown_fields_are_said() {
    let harness = Harness::new().await;
    let mut map = config_map("a", json!({}));
    map["dota"] = json!({});
    harness.post(&format!("{MAPS}?fieldValidation=Strict"), map.clone()).await.refused(
        400,
        "BadRequest",
        "strict decoding error: unknown field \"dota\"",
    );
    let warned = harness.post(MAPS, map.clone()).await;
    assert_eq!(warned.warnings(), ["299 - \"unknown field \\\"dota\\\"\""]);
    assert_eq!(warned.expect(201)["dota"], Value::Null);
    map["metadata"]["name"] = json!("b");
    let silent = harness.post(&format!("{MAPS}?fieldValidation=Ignore"), map.clone()).await;
    assert_eq!((silent.code, silent.warnings().len()), (201, 0));
    harness.post(&format!("{MAPS}?fieldValidation=Sometimes"), map).await.refused(
        422,
        "Invalid",
        "fieldValidation: Unsupported value",
    );
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {k: v}\ndata: {k: w}\n";
    let duplicate = harness
        .raw(Method::POST, &format!("{MAPS}?fieldValidation=Strict"), &[("content-type", "application/yaml")], yaml)
        .await;
    duplicate.refused(400, "BadRequest", "line 5: key \"data\" already set in map");
    let apply = [("content-type", "application/apply-patch+yaml")];
    let strict = format!("{MAPS}/c?fieldManager=m&fieldValidation=Strict");
    harness.raw(Method::PATCH, &strict, &apply, yaml).await.refused(
        400,
        "BadRequest",
        "error strict decoding YAML: yaml: unmarshal errors:\n  line 5: key \"data\" already set in map",
    );
    let yaml = yaml.replacen("data: {k: v}\n", "", 1);
    let created = harness.raw(Method::POST, MAPS, &[("content-type", "application/yaml")], yaml).await.expect(201);
    assert_eq!(created["data"]["k"], "w");
}

#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let harness = Harness::new().await;
    harness.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let path = format!("{MAPS}/a");
    let patches = (0..20).map(|index| {
        let (harness, path) = (&harness, &path);
        async move { harness.patch(path, json!({"data": {format!("k{index}"): "1"}})).await.expect(200) }
    });
    futures::future::join_all(patches).await;
    let object = harness.get(&path).await.expect(200);
    assert_eq!(object["data"].as_object().unwrap().len(), 20);
}
