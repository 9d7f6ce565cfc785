//! Lists: selectors, pages, revisions, forms.

use http::Method;
use serde_json::{Value, json};

use crate::crud::config_map;
use crate::harness::{Answer, Harness};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn with_maps(count: usize) -> Harness {
    let harness = Harness::new().await;
    for index in 0..count {
        let mut map = config_map(&format!("m{index}"), json!({}));
        map["metadata"]["labels"] =
            json!({"parity": if index % 2 == 0 { "even" } else { "odd" }, "n": index.to_string()});
        harness.post(MAPS, map).await.expect(201);
    }
    harness
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn selectors_select() {
    let harness = with_maps(5).await;
    for (query, expected) in [
        ("", vec!["m0", "m1", "m2", "m3", "m4"]),
        ("labelSelector=parity%3Dodd", vec!["m1", "m3"]),
        ("labelSelector=parity!%3Dodd", vec!["m0", "m2", "m4"]),
        ("labelSelector=n%20in%20(0,3),parity", vec!["m0", "m3"]),
        ("labelSelector=parity%3Deven,n%3D2", vec!["m2"]),
        ("labelSelector=missing", vec![]),
        ("fieldSelector=metadata.name%3Dm4", vec!["m4"]),
        ("fieldSelector=metadata.name!%3Dm4", vec!["m0", "m1", "m2", "m3"]),
        ("fieldSelector=metadata.namespace%3Dother", vec![]),
        ("labelSelector=parity%3Deven&limit=2", vec!["m0", "m2"]),
    ] {
        let list = harness.get(&format!("{MAPS}?{query}")).await.expect(200);
        assert_eq!((names(&list), &list["kind"]), (expected, &json!("ConfigMapList")), "{query}");
    }
    let everywhere = harness.get("/api/v1/configmaps?labelSelector=parity%3Dodd").await.expect(200);
    assert_eq!(names(&everywhere), ["m1", "m3"]);
    harness.get(&format!("{MAPS}?fieldSelector=data.x%3D1")).await.refused(
        400,
        "BadRequest",
        "\"data.x\" is not a known field selector",
    );
    harness.get(&format!("{MAPS}?labelSelector=a%20b")).await.refused(400, "BadRequest", "");
}

#[tokio::test]
async fn pages_show_one_revision() {
    let harness = with_maps(5).await;
    let first = harness.get(&format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["m0", "m1"], &json!(3)));
    harness.delete(&format!("{MAPS}/m3")).await.expect(200);
    harness.post(MAPS, config_map("m9", json!({}))).await.expect(201);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = harness.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["m2", "m3"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = harness.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!((names(&third), &third["metadata"]["continue"]), (vec!["m4"], &Value::Null));
}

#[tokio::test]
async fn an_expired_page_can_be_gone_on_from() {
    let harness = with_maps(4).await;
    let first = harness.get(&format!("{MAPS}?limit=2")).await.expect(200);
    harness.delete(&format!("{MAPS}/m2")).await.expect(200);
    let revision = kedge_store::Store::revision(&*harness.store);
    kedge_store::Store::compact(&*harness.store, revision).await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let expired = harness.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    let expired = expired.refused(410, "Expired", "The provided continue parameter is too old");
    let token = expired["metadata"]["continue"].as_str().unwrap();
    let rest = harness.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["m3"]);
    harness.get(&format!("{MAPS}?continue=nonsense")).await.refused(400, "BadRequest", "continue key is not valid");
}

#[tokio::test]
async fn revisions_are_kept_to() {
    let harness = with_maps(2).await;
    let before = harness.get(MAPS).await.expect(200);
    let revision = before["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    harness.delete(&format!("{MAPS}/m0")).await.expect(200);
    let exact = harness.get(&format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")).await.expect(200);
    assert_eq!(names(&exact), ["m0", "m1"]);
    let newer = harness.get(&format!("{MAPS}?resourceVersion={revision}")).await.expect(200);
    assert_eq!(names(&newer), ["m1"]);
    let future = harness.get(&format!("{MAPS}?resourceVersion=99999")).await;
    future.refused(504, "Timeout", "Too large resource version: 99999, current: ");
    let revision = kedge_store::Store::revision(&*harness.store);
    kedge_store::Store::compact(&*harness.store, revision).await.unwrap();
    harness
        .get(&format!("{MAPS}?resourceVersion=2&resourceVersionMatch=Exact"))
        .await
        .refused(410, "Expired", "too old");
}

async fn accepting(harness: &Harness, path: &str, accept: &str) -> Answer {
    harness.raw(Method::GET, path, &[("accept", accept)], "").await
}

#[tokio::test]
async fn forms() {
    let harness = with_maps(2).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let list = accepting(&harness, MAPS, table).await.expect(200);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns: Vec<_> =
        list["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Data", "Age"]);
    assert_eq!(list["rows"][1]["cells"][0], "m1");
    assert_eq!(list["rows"][1]["object"]["kind"], "PartialObjectMetadata");
    let one = accepting(&harness, &format!("{MAPS}/m1?includeObject=Object"), table).await.expect(200);
    assert_eq!(one["rows"][0]["object"]["kind"], "ConfigMap");
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = accepting(&harness, MAPS, partial).await.expect(200);
    assert_eq!(
        (&list["kind"], &list["items"][0]["kind"]),
        (&json!("PartialObjectMetadataList"), &json!("PartialObjectMetadata"))
    );
    assert_eq!(list["items"][0].as_object().unwrap().len(), 3);
    let yaml = accepting(&harness, &format!("{MAPS}/m1"), "application/yaml").await;
    assert!(
        yaml.text.contains("kind: ConfigMap\n") && yaml.headers["content-type"] == "application/yaml",
        "{}",
        yaml.text
    );
    let pretty = harness.get(&format!("{MAPS}/m1?pretty=true")).await;
    assert!(pretty.text.starts_with("{\n  \""), "{}", pretty.text);
    accepting(&harness, MAPS, "text/html").await.refused(
        406,
        "NotAcceptable",
        "only the following media types are accepted",
    );
}
