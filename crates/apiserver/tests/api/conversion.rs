//! Custom resources whose versions differ: a webhook of their definition converts them.

use serde_json::{Value, json};

use crate::custom::{define, definition};
use crate::harness::{Events, Harness};
use crate::hook_server::HookServer;

const V1: &str = "/apis/a.io/v1/namespaces/default/hosts";
const V2: &str = "/apis/a.io/v2/namespaces/default/hosts";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/hosts.a.io";

/// `hostPort` of v1 is `host` and `port` of v2.
fn convert(object: &Value, wanted: &str) -> Value {
    let mut object = object.clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let fields = object.as_object_mut().unwrap();
    match wanted {
        "a.io/v2" => {
            let both = text(&fields.remove("hostPort").unwrap_or_default());
            let (host, port) = both.split_once(':').unwrap_or((&both, ""));
            fields.insert("host".to_owned(), host.into());
            fields.insert("port".to_owned(), port.into());
        }
        _ => {
            let (host, port) =
                (text(&fields.remove("host").unwrap_or_default()), text(&fields.remove("port").unwrap_or_default()));
            fields.insert("hostPort".to_owned(), format!("{host}:{port}").into());
        }
    }
    object["apiVersion"] = json!(wanted);
    object["metadata"]["generation"] = json!(77);
    object
}

async fn converter() -> HookServer {
    HookServer::start(|request| {
        let wanted = request["desiredAPIVersion"].as_str().unwrap();
        let objects: Vec<Value> =
            request["objects"].as_array().unwrap().iter().map(|object| convert(object, wanted)).collect();
        json!({"result": {"status": "Success"}, "convertedObjects": objects})
    })
    .await
}

fn hosts(server: &HookServer) -> Value {
    let version = |name: &str, fields: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            fields.iter().map(|field| ((*field).to_owned(), json!({"type": "string"}))).collect();
        let mut version = json!({"name": name, "served": true, "storage": name == "v1", "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}});
        if name == "v2" {
            version["selectableFields"] = json!([{"jsonPath": ".host"}]);
            version["additionalPrinterColumns"] = json!([{"name": "Host", "type": "string", "jsonPath": ".host"}]);
        }
        version
    };
    let mut hosts =
        definition("hosts", "Host", json!([version("v1", &["hostPort"]), version("v2", &["host", "port"])]));
    hosts["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"clientConfig": server.client_config(),
        "conversionReviewVersions": ["v1", "v1beta1"]}});
    hosts
}

fn host(version: &str, name: &str, fields: Value) -> Value {
    let mut host = json!({"apiVersion": format!("a.io/{version}"), "kind": "Host", "metadata": {"name": name}});
    host.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    host
}

#[tokio::test]
async fn every_version_is_read_and_written_through_the_webhook() {
    let (harness, server) = (Harness::new().await, converter().await);
    define(&harness, hosts(&server)).await;
    harness.post(V1, host("v1", "a", json!({"hostPort": "one:1"}))).await.expect(201);
    // What is in the stored version already needs no webhook.
    harness.get(&format!("{V1}/a")).await.expect(200);
    assert_eq!(server.requests().len(), 0);
    let second = harness.get(&format!("{V2}/a")).await.expect(200);
    assert_eq!(
        (&second["apiVersion"], &second["host"], &second["port"]),
        (&json!("a.io/v2"), &json!("one"), &json!("1"))
    );
    assert_eq!((&second["hostPort"], &second["metadata"]["generation"]), (&Value::Null, &json!(1)));
    let created = harness.post(V2, host("v2", "b", json!({"host": "two", "port": "2"}))).await.expect(201);
    assert_eq!((&created["apiVersion"], &created["host"]), (&json!("a.io/v2"), &json!("two")));
    assert_eq!(harness.get(&format!("{V1}/b")).await.expect(200)["hostPort"], "two:2");
    let patched = harness.patch(&format!("{V2}/b"), json!({"port": "3"})).await.expect(200);
    assert_eq!((&patched["port"], &patched["metadata"]["generation"]), (&json!("3"), &json!(2)));
    assert_eq!(harness.get(&format!("{V1}/b")).await.expect(200)["hostPort"], "two:3");
    let status =
        harness.patch(&format!("{V2}/b/status"), json!({"metadata": {"labels": {"x": "y"}}})).await.expect(200);
    assert_eq!(status["host"], "two");
    let dry =
        harness.post(&format!("{V2}?dryRun=All"), host("v2", "c", json!({"host": "x", "port": "1"}))).await.expect(201);
    assert_eq!(dry["host"], "x");
    harness.delete(&format!("{V2}/b")).await.expect(200);
    harness.get(&format!("{V1}/b")).await.refused(404, "NotFound", "not found");
}

#[tokio::test]
async fn a_list_is_converted_in_one_call() {
    let (harness, server) = (Harness::new().await, converter().await);
    define(&harness, hosts(&server)).await;
    for name in ["a", "b", "c"] {
        harness.post(V1, host("v1", name, json!({"hostPort": format!("{name}:1")}))).await.expect(201);
    }
    let listed = harness.get(V2).await.expect(200);
    let found: Vec<&str> =
        listed["items"].as_array().unwrap().iter().map(|item| item["host"].as_str().unwrap()).collect();
    assert_eq!((found, server.requests().len()), (vec!["a", "b", "c"], 1));
    assert_eq!(server.requests()[0]["objects"].as_array().unwrap().len(), 3);
    let metrics = harness.get("/metrics").await.text;
    let line = "apiserver_conversion_webhook_request_total{result=\"success\",failure_type=\"\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
    let line = "apiserver_crd_conversion_webhook_duration_seconds_count{crd_name=\"hosts.a.io\",from_version=\"v1\",to_version=\"v2\",succeeded=\"true\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
    assert_eq!(listed["items"][0]["apiVersion"], "a.io/v2");
    let selected = harness.get(&format!("{V2}?fieldSelector=host%3Db")).await.expect(200);
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
    let table = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
    let table = harness.raw(http::Method::GET, V2, &table, "").await.expect(200);
    assert_eq!(table["rows"][0]["cells"], json!(["a", "a"]));
    let labelled = json!({"metadata": {"labels": {"x": "y"}}});
    harness.patch(&format!("{V1}/b"), labelled).await.expect(200);
    assert_eq!(harness.get(&format!("{V2}?labelSelector=x%3Dy")).await.expect(200)["items"][0]["host"], "b");
}

#[tokio::test]
async fn objects_stored_in_several_versions_are_listed_in_one() {
    let (harness, server) = (Harness::new().await, converter().await);
    define(&harness, hosts(&server)).await;
    harness.post(V1, host("v1", "a", json!({"hostPort": "one:1"}))).await.expect(201);
    let hash = |json: &Value| json["resources"][0]["storageVersionHash"].clone();
    let before = hash(&harness.get("/apis/a.io/v2").await.expect(200));
    let patch = [("content-type", "application/json-patch+json")];
    let stored = json!([{"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
    harness.raw(http::Method::PATCH, DEFINITION, &patch, stored.to_string()).await.expect(200);
    crate::custom::eventually(&harness, "/apis/a.io/v2", |answer| hash(&answer.json) != before).await;
    harness.post(V2, host("v2", "b", json!({"host": "two", "port": "2"}))).await.expect(201);
    server.forget();
    let first = harness.get(V1).await.expect(200);
    assert_eq!((&first["items"][0]["hostPort"], &first["items"][1]["hostPort"]), (&json!("one:1"), &json!("two:2")));
    assert_eq!(server.requests()[0]["objects"].as_array().unwrap().len(), 1);
    let second = harness.get(V2).await.expect(200);
    assert_eq!((&second["items"][0]["host"], &second["items"][1]["host"]), (&json!("one"), &json!("two")));
}

#[tokio::test]
async fn a_watch_shows_the_version_that_was_asked_for() {
    let (harness, server) = (Harness::new().await, converter().await);
    define(&harness, hosts(&server)).await;
    harness.post(V1, host("v1", "a", json!({"hostPort": "one:1"}))).await.expect(201);
    let mut events = Events::open(&harness, &format!("{V2}?watch=true")).await;
    let added = events.next().await.unwrap();
    assert_eq!((&added["type"], &added["object"]["host"]), (&json!("ADDED"), &json!("one")));
    harness.patch(&format!("{V1}/a"), json!({"hostPort": "two:1"})).await.expect(200);
    let modified = events.next().await.unwrap();
    assert_eq!((&modified["type"], &modified["object"]["host"]), (&json!("MODIFIED"), &json!("two")));
    let last = harness.delete(&format!("{V1}/a")).await;
    last.expect(200);
    let deleted = events.next().await.unwrap();
    assert_eq!((&deleted["type"], &deleted["object"]["host"]), (&json!("DELETED"), &json!("two")));
    let version = deleted["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(version > modified["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap());
}

#[tokio::test]
async fn a_webhook_that_does_not_convert_is_named() {
    let cases: [(Value, &str); 4] = [
        (
            json!({"result": {"status": "Failure", "message": "cannot"}}),
            "conversion webhook for a.io/v2, Kind=HostList failed: cannot",
        ),
        (json!({"result": {"status": "Success"}, "convertedObjects": []}), "returned 0 objects, expected 1"),
        (
            json!({"result": {"status": "Success"}, "convertedObjects": [{"apiVersion": "a.io/v9", "kind": "Host"}]}),
            "invalid groupVersion (expected a.io/v2, received a.io/v9)",
        ),
        (json!({"httpCode": 503}), "failed: the server is currently unable to handle the request"),
    ];
    for (response, text) in cases {
        let harness = Harness::new().await;
        let server = HookServer::start(move |_| response.clone()).await;
        define(&harness, hosts(&server)).await;
        let before = harness.get(V1).await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        harness.post(V1, host("v1", "a", json!({"hostPort": "one:1"}))).await.expect(201);
        let failed = harness.get(V2).await;
        assert_eq!(failed.code, 500);
        assert!(failed.json["message"].as_str().unwrap().contains(text), "{}", failed.text);
        let watched = harness.get(&format!("{V2}?watch=true&resourceVersion={before}")).await;
        assert!(
            watched.text.contains("\"type\":\"ERROR\"") && watched.text.contains("conversion webhook for"),
            "{}",
            watched.text
        );
        // The stored version is there all the same, and the definition can go.
        harness.get(V1).await.expect(200);
        harness.delete(DEFINITION).await.expect(200);
        crate::custom::eventually(&harness, DEFINITION, |answer| answer.code == 404).await;
    }
}
