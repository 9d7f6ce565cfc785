//! Watches: what they show, when they end.

use serde_json::json;

use crate::crud::config_map;
use crate::harness::{Events, Harness};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_shows_state_and_changes() {
    let harness = Harness::new().await;
    harness.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let mut events = Events::open(&harness, &format!("{MAPS}?watch=true")).await;
    assert_eq!(events.next_name().await, pair("ADDED", "a"));
    harness.post(MAPS, config_map("b", json!({}))).await.expect(201);
    harness.patch(&format!("{MAPS}/b"), json!({"data": {"x": "1"}})).await.expect(200);
    harness.delete(&format!("{MAPS}/b")).await.expect(200);
    assert_eq!(events.next_name().await, pair("ADDED", "b"));
    assert_eq!(events.next_name().await, pair("MODIFIED", "b"));
    let deleted = events.next().await.unwrap();
    let revision = kedge_store::Store::revision(&*harness.store).to_string();
    assert_eq!(
        (&deleted["type"], &deleted["object"]["metadata"]["resourceVersion"]),
        (&json!("DELETED"), &json!(revision))
    );
}

#[tokio::test]
async fn selectors_turn_changes_into_comings_and_goings() {
    let harness = Harness::new().await;
    let mut events = Events::open(&harness, &format!("{MAPS}?watch=true&labelSelector=app%3Dweb")).await;
    harness.post(MAPS, config_map("a", json!({}))).await.expect(201);
    for labels in [json!({"app": "web"}), json!({"app": "web", "x": "1"}), json!({"app": "api"})] {
        harness.patch(&format!("{MAPS}/a"), json!({"metadata": {"labels": labels}})).await.expect(200);
    }
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        assert_eq!(events.next_name().await, pair(kind, "a"));
    }
}

#[tokio::test]
async fn old_revisions_are_gone() {
    let harness = Harness::new().await;
    for name in ["a", "b", "c"] {
        harness.post(MAPS, config_map(name, json!({}))).await.expect(201);
    }
    let revision = kedge_store::Store::revision(&*harness.store);
    kedge_store::Store::compact(&*harness.store, revision).await.unwrap();
    let mut events = Events::open(&harness, &format!("{MAPS}?watch=true&resourceVersion=1")).await;
    let event = events.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"], &event["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(event["object"]["message"].as_str().unwrap().starts_with("too old resource version: 1 ("));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn streaming_lists_end_with_a_bookmark() {
    let harness = Harness::new().await;
    harness.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = Events::open(&harness, &format!("{MAPS}?{query}")).await;
    assert_eq!(events.next_name().await, pair("ADDED", "a"));
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    harness.server.shut_down();
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_watch_can_show_tables() {
    let harness = Harness::new().await;
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let request = crate::harness::request(http::Method::GET, &format!("{MAPS}?watch=true"), &table, "");
    let mut events = Events::over(harness.send(None, request).await);
    harness.post(MAPS, config_map("a", json!({"k": "1"}))).await.expect(201);
    harness.delete(&format!("{MAPS}/a")).await.expect(200);
    let first = events.next().await.unwrap();
    assert_eq!(
        (&first["type"], &first["object"]["kind"], &first["object"]["rows"][0]["cells"][1]),
        (&json!("ADDED"), &json!("Table"), &json!(1))
    );
    assert_eq!(first["object"]["columnDefinitions"].as_array().unwrap().len(), 3);
    let second = events.next().await.unwrap();
    assert_eq!((&second["type"], &second["object"]["columnDefinitions"]), (&json!("DELETED"), &json!([])));
}

#[tokio::test]
async fn the_old_paths_watch_too() {
    let harness = Harness::new().await;
    let mut one = Events::open(&harness, "/api/v1/watch/namespaces/default/configmaps/b").await;
    let mut all = Events::open(&harness, "/api/v1/watch/configmaps?fieldSelector=metadata.namespace%3Ddefault").await;
    for name in ["a", "b"] {
        harness.post(MAPS, config_map(name, json!({}))).await.expect(201);
    }
    assert_eq!(one.next_name().await, pair("ADDED", "b"));
    assert_eq!(all.next_name().await, pair("ADDED", "a"));
    assert_eq!(all.next_name().await, pair("ADDED", "b"));
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_in_time_with_a_bookmark() {
    let harness = Harness::new().await;
    let query = "watch=true&resourceVersion=2&timeoutSeconds=100&allowWatchBookmarks=true";
    let mut events = Events::open(&harness, &format!("{MAPS}?{query}")).await;
    let revision = kedge_store::Store::revision(&*harness.store).to_string();
    for _ in 0..2 {
        let bookmark = events.next().await.unwrap();
        assert_eq!(
            (&bookmark["type"], &bookmark["object"]["metadata"]["resourceVersion"]),
            (&json!("BOOKMARK"), &json!(revision))
        );
    }
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_watch_speaks_protobuf_to_those_who_name_it_first() {
    let harness = Harness::new().await;
    let accept = [("accept", "application/vnd.kubernetes.protobuf, application/json")];
    let path = format!("{MAPS}?watch=true&allowWatchBookmarks=true");
    let response = harness.send(None, crate::harness::request(http::Method::GET, &path, &accept, "")).await;
    assert_eq!(response.headers()["content-type"], kedge_schema::PROTOBUF_WATCH);
    let created = harness.post(MAPS, config_map("a", json!({"k": "1"}))).await.expect(201);
    harness.server.shut_down();
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let object = kedge_schema::encode_protobuf(&created).unwrap();
    assert_eq!(bytes, kedge_schema::protobuf_watch_frame("ADDED", &object));
}
