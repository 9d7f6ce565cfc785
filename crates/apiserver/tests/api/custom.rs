//! Custom resources: what is defined is served, like any other kind, until its definition goes.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Events, Harness};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(crate) const TOOLS: &str = "/apis/a.io/v1/namespaces/default/tools";

/// A definition of `tools.a.io`, with one version that has this schema of `spec`.
pub(crate) fn tools(spec: Value) -> Value {
    definition("tools", "Tool", json!([version("v1", spec)]))
}

/// A version with a schema of its `spec`; the first one is stored.
pub(crate) fn version(name: &str, spec: Value) -> Value {
    json!({"name": name, "served": true, "storage": name == "v1",
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec,
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}})
}

pub(crate) fn definition(plural: &str, kind: &str, versions: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.a.io")},
        "spec": {"group": "a.io", "scope": "Namespaced", "names": {"plural": plural, "kind": kind, "shortNames": ["tl"],
            "categories": ["all"]}, "versions": versions}})
}

/// Asks until the answer is as wanted.
pub(crate) async fn eventually(harness: &Harness, path: &str, wanted: impl Fn(&Answer) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = harness.get(path).await;
        if wanted(&answer) {
            return answer.json;
        }
        assert!(Instant::now() < deadline, "{path} stays {}", answer.text);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn condition(definition: &Value, kind: &str) -> String {
    let list = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = list.iter().find(|one| one["type"] == kind).cloned().unwrap_or_default();
    format!("{} {}", found["status"].as_str().unwrap_or(""), found["reason"].as_str().unwrap_or(""))
}

/// Creates a definition and waits until it is established.
pub(crate) async fn define(harness: &Harness, definition: Value) -> Value {
    let path = format!("{DEFINITIONS}/{}", definition["metadata"]["name"].as_str().unwrap());
    harness.post(DEFINITIONS, definition).await.expect(201);
    eventually(harness, &path, |answer| condition(&answer.json, "Established").starts_with("True")).await
}

pub(crate) fn tool(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "a.io/v1", "kind": "Tool", "metadata": {"name": name}, "spec": spec})
}

fn free() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

#[tokio::test]
async fn what_is_defined_is_served() {
    let harness = Harness::new().await;
    harness.get(TOOLS).await.refused(404, "NotFound", "could not find the requested resource");
    let defined = define(&harness, tools(free())).await;
    assert_eq!(condition(&defined, "NamesAccepted"), "True NoConflicts");
    assert_eq!(condition(&defined, "Established"), "True InitialNamesAccepted");
    assert_eq!(defined["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(defined["status"]["acceptedNames"], defined["spec"]["names"]);

    let created = harness.post(TOOLS, tool("a", json!({"size": 1}))).await.expect(201);
    assert_eq!((&created["metadata"]["generation"], &created["spec"]), (&json!(1), &json!({"size": 1})));
    assert_eq!(created["status"], Value::Null);
    let path = format!("{TOOLS}/a");
    let changed = harness.patch(&path, json!({"spec": {"size": 2}})).await.expect(200);
    assert_eq!((&changed["metadata"]["generation"], &changed["spec"]["size"]), (&json!(2), &json!(2)));
    let labelled = harness.patch(&path, json!({"metadata": {"labels": {"x": "y"}}})).await.expect(200);
    assert_eq!(labelled["metadata"]["generation"], 2);
    let listed = harness.get("/apis/a.io/v1/tools?labelSelector=x%3Dy").await.expect(200);
    assert_eq!((&listed["kind"], &listed["items"][0]["metadata"]["name"]), (&json!("ToolList"), &json!("a")));
    let mut unversioned = labelled.clone();
    unversioned["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    harness.put(&path, unversioned).await.refused(422, "Invalid", "must be specified for an update");
    let headers = [("content-type", "application/strategic-merge-patch+json")];
    assert_eq!(harness.raw(Method::PATCH, &path, &headers, "{}").await.code, 415);
    let headers = [("content-type", "application/json-patch+json")];
    let patch = r#"[{"op":"add","path":"/spec/more","value":1}]"#;
    assert_eq!(harness.raw(Method::PATCH, &path, &headers, patch).await.expect(200)["spec"]["more"], 1);

    let headers = [("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")];
    let metadata = harness.raw(Method::GET, &path, &headers, "").await.expect(200);
    assert_eq!((&metadata["kind"], &metadata["spec"]), (&json!("PartialObjectMetadata"), &Value::Null));
    harness.post(TOOLS, tool("b", json!({}))).await.expect(201);
    harness.delete(&path).await.expect(200);
    harness.delete(TOOLS).await.expect(200);
    assert_eq!(harness.get(TOOLS).await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn clients_find_what_is_defined() {
    let harness = Harness::new().await;
    define(&harness, tools(json!({"type": "object", "properties": {"size": {"type": "integer"}}}))).await;
    let groups = harness.get("/apis").await.expect(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "a.io"));
    let resources = harness.get("/apis/a.io/v1").await.expect(200);
    let tools = &resources["resources"][0];
    assert_eq!(
        (&tools["name"], &tools["shortNames"], &tools["categories"]),
        (&json!("tools"), &json!(["tl"]), &json!(["all"]))
    );
    assert_eq!(tools["singularName"], "tool");
    let document = harness.get("/openapi/v3/apis/a.io/v1").await.expect(200);
    let schema = &document["components"]["schemas"]["io.a.v1.Tool"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["type"], "integer");
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Tool");
    let document = harness.get("/openapi/v2").await.expect(200);
    assert_eq!(document["definitions"]["io.a.v1.Tool"]["properties"]["spec"]["properties"]["size"]["type"], "integer");
    assert!(document["definitions"]["io.a.v1.ToolList"].is_object());
    // kubectl sends strategic patches to what says that it takes them.
    let patch = &document["paths"]["/apis/a.io/v1/namespaces/{namespace}/tools/{name}"]["patch"]["consumes"];
    assert!(patch.as_array().unwrap().iter().all(|form| form != "application/strategic-merge-patch+json"), "{patch}");
}

/// kubectl takes the fields that version 2 names for all that there are.
#[tokio::test]
async fn regress_what_is_free_at_its_root_is_published_as_any_object() {
    let harness = Harness::new().await;
    let mut all_free = tools(free());
    all_free["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = free();
    define(&harness, all_free).await;
    let of = |document: &Value, path: &str| document.pointer(path).unwrap()["io.a.v1.Tool"].clone();
    let kinds = json!([{"group": "a.io", "version": "v1", "kind": "Tool"}]);
    let old = harness.get("/openapi/v2").await.expect(200);
    assert_eq!(of(&old, "/definitions"), json!({"type": "object", "x-kubernetes-group-version-kind": kinds}));
    let new = of(&harness.get("/openapi/v3/apis/a.io/v1").await.expect(200), "/components/schemas");
    assert!(new["x-kubernetes-preserve-unknown-fields"] == true && new["properties"]["metadata"].is_object(), "{new}");
}

#[tokio::test]
async fn a_status_and_a_scale_are_apart() {
    let harness = Harness::new().await;
    let mut with = tools(free());
    with["spec"]["versions"][0]["subresources"] = json!({"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}});
    define(&harness, with).await;
    let mut object = tool("a", json!({"replicas": 2}));
    object["status"] = json!({"replicas": 9});
    let created = harness.post(TOOLS, object).await.expect(201);
    assert_eq!(created["status"], Value::Null);
    let path = format!("{TOOLS}/a");
    let status = json!({"spec": {"replicas": 7}, "metadata": {"labels": {"no": "no"}},
        "status": {"replicas": 1, "selector": "a=b"}});
    let changed = harness.patch(&format!("{path}/status"), status).await.expect(200);
    assert_eq!((&changed["spec"]["replicas"], &changed["status"]["replicas"]), (&json!(2), &json!(1)));
    assert_eq!((&changed["metadata"]["generation"], &changed["metadata"]["labels"]), (&json!(1), &Value::Null));
    let changed = harness.patch(&path, json!({"status": {"replicas": 5}, "spec": {"x": 1}})).await.expect(200);
    assert_eq!((&changed["status"]["replicas"], &changed["metadata"]["generation"]), (&json!(1), &json!(2)));
    let scale = harness.get(&format!("{path}/scale")).await.expect(200);
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]), (&json!(2), &json!({"replicas": 1, "selector": "a=b"})));
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": 4}});
    harness.put(&format!("{path}/scale"), scale).await.expect(200);
    assert_eq!(harness.get(&path).await.expect(200)["spec"]["replicas"], 4);
}

#[tokio::test]
async fn tables_show_the_columns_that_are_asked_for() {
    let harness = Harness::new().await;
    let mut with = tools(free());
    with["spec"]["versions"][0]["additionalPrinterColumns"] = json!([
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Ready", "type": "string", "jsonPath": ".spec.conditions[?(@.type=='Ready')].status", "priority": 1}]);
    with["spec"]["versions"][0]["selectableFields"] = json!([]);
    define(&harness, with).await;
    let spec = json!({"size": 3, "conditions": [{"type": "A", "status": "no"}, {"type": "Ready", "status": "yes"}]});
    harness.post(TOOLS, tool("a", spec)).await.expect(201);
    let headers = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
    let table = harness.raw(Method::GET, TOOLS, &headers, "").await.expect(200);
    assert_eq!(table["rows"][0]["cells"], json!(["a", 3, "yes"]));
    assert_eq!(table["columnDefinitions"][2]["priority"], 1);
}

#[tokio::test]
async fn fields_can_be_selected_by() {
    let harness = Harness::new().await;
    let mut with =
        tools(json!({"type": "object", "properties": {"color": {"type": "string"}, "n": {"type": "integer"}}}));
    with["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.n"}]);
    define(&harness, with).await;
    for (name, color, n) in [("a", "red", 1), ("b", "blue", 2)] {
        harness.post(TOOLS, tool(name, json!({"color": color, "n": n}))).await.expect(201);
    }
    for (selector, expected) in
        [("spec.color%3Dred", vec!["a"]), ("spec.n%3D2", vec!["b"]), ("spec.color!%3Dgreen", vec!["a", "b"])]
    {
        let listed = harness.get(&format!("{TOOLS}?fieldSelector={selector}")).await.expect(200);
        let names: Vec<&str> =
            listed["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected);
    }
    let refused = harness.get(&format!("{TOOLS}?fieldSelector=spec.other%3D1")).await;
    refused.refused(400, "BadRequest", "field label not supported: spec.other");
}

#[tokio::test]
async fn names_are_given_once_and_again_when_they_are_free() {
    let harness = Harness::new().await;
    define(&harness, tools(free())).await;
    let path = format!("{DEFINITIONS}/hammers.a.io");
    harness.post(DEFINITIONS, definition("hammers", "Tool", json!([version("v1", free())]))).await.expect(201);
    let refused = eventually(&harness, &path, |answer| condition(&answer.json, "NamesAccepted") != " ").await;
    assert_eq!(condition(&refused, "NamesAccepted"), "False ListKindConflict");
    assert_eq!(condition(&refused, "Established"), "False NotAccepted");
    harness.get("/apis/a.io/v1/hammers").await.refused(404, "NotFound", "");
    harness.delete(&format!("{DEFINITIONS}/tools.a.io")).await.expect(200);
    eventually(&harness, &path, |answer| condition(&answer.json, "Established").starts_with("True")).await;
    eventually(&harness, "/apis/a.io/v1/hammers", |answer| answer.code == 200).await;
    eventually(&harness, TOOLS, |answer| answer.code == 404).await;
}

#[tokio::test]
async fn a_definition_takes_its_instances_with_it() {
    let harness = Harness::new().await;
    define(&harness, tools(free())).await;
    harness.post(TOOLS, tool("a", json!({}))).await.expect(201);
    let mut kept = tool("b", json!({}));
    kept["metadata"]["finalizers"] = json!(["a.io/keep"]);
    harness.post(TOOLS, kept).await.expect(201);
    let mut events = Events::open(&harness, &format!("{TOOLS}?watch=true")).await;
    for _ in 0..2 {
        assert_eq!(events.next_name().await.0, "ADDED");
    }
    let path = format!("{DEFINITIONS}/tools.a.io");
    harness.delete(&path).await.expect(200);
    eventually(&harness, &format!("{TOOLS}/a"), |answer| answer.code == 404).await;
    let ending = harness.get(&path).await.expect(200);
    assert_eq!(condition(&ending, "Terminating"), "True InstanceDeletionInProgress");
    assert_eq!(ending["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    harness.post(TOOLS, tool("c", json!({}))).await.refused(405, "MethodNotAllowed", "");
    harness.patch(&format!("{TOOLS}/b"), json!({"metadata": {"finalizers": null}})).await.expect(200);
    eventually(&harness, &path, |answer| answer.code == 404).await;
    eventually(&harness, TOOLS, |answer| answer.code == 404).await;
    let mut names = Vec::new();
    while let Some(event) = events.next().await {
        names.push(format!(
            "{} {}",
            event["type"].as_str().unwrap(),
            event["object"]["metadata"]["name"].as_str().unwrap()
        ));
    }
    assert!(names.contains(&"DELETED a".to_owned()) || names.contains(&"DELETED b".to_owned()), "{names:?}");
}

#[tokio::test]
async fn what_is_defined_is_there_after_a_restart_and_for_other_servers() {
    let first = Harness::new().await;
    define(&first, tools(free())).await;
    first.post(TOOLS, tool("a", json!({}))).await.expect(201);
    let second = Harness::over(first.store.clone(), kedge_apiserver::Config::default()).await;
    assert_eq!(second.get(&format!("{TOOLS}/a")).await.expect(200)["kind"], "Tool");
    let other = definition("saws", "Saw", json!([version("v1", free())]));
    let mut other = other;
    other["spec"]["names"]["shortNames"] = json!([]);
    define(&second, other).await;
    eventually(&first, "/apis/a.io/v1/saws", |answer| answer.code == 200).await;
}

#[tokio::test]
async fn versions_are_served_side_by_side() {
    let harness = Harness::new().await;
    let mut second = version("v2", free());
    second["deprecated"] = json!(true);
    define(&harness, definition("tools", "Tool", json!([version("v1", free()), second]))).await;
    harness.post(TOOLS, tool("a", json!({"x": 1}))).await.expect(201);
    let other = "/apis/a.io/v2/namespaces/default/tools";
    let answer = harness.get(&format!("{other}/a")).await;
    assert_eq!(answer.warnings(), ["299 - \"a.io/v2 Tool is deprecated\""]);
    assert_eq!(answer.expect(200)["apiVersion"], "a.io/v2");
    let listed = harness.get(other).await.expect(200);
    assert_eq!((&listed["apiVersion"], &listed["items"][0]["apiVersion"]), (&json!("a.io/v2"), &json!("a.io/v2")));
    let path = format!("{DEFINITIONS}/tools.a.io");
    let mut changed = harness.get(&path).await.expect(200);
    changed["spec"]["versions"][0]["storage"] = json!(false);
    changed["spec"]["versions"][1]["storage"] = json!(true);
    let changed = harness.put(&path, changed).await.expect(200);
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    // What was stored before is answered in the version that is asked for.
    eventually(&harness, &format!("{other}/a"), |answer| answer.json["apiVersion"] == "a.io/v2").await;
    eventually(&harness, &format!("{TOOLS}/a"), |answer| answer.json["apiVersion"] == "a.io/v1").await;
    let mut gone = changed.clone();
    gone["spec"]["versions"].as_array_mut().unwrap().remove(0);
    gone["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    gone["metadata"]["resourceVersion"] = harness.get(&path).await.expect(200)["metadata"]["resourceVersion"].clone();
    harness.put(&path, gone).await.refused(
        422,
        "Invalid",
        "status.storedVersions[0]: Invalid value: \"v1\": missing from",
    );
}
