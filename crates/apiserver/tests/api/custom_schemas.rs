//! Custom resources and their schemas: what is pruned, filled in, refused and merged.

use http::Method;
use serde_json::{Value, json};

use crate::custom::{TOOLS, define, definition, tool, tools, version};
use crate::harness::Harness;

fn sized() -> Value {
    json!({"type": "object", "required": ["size"], "properties": {
        "size": {"type": "integer", "minimum": 1}, "color": {"type": "string", "default": "red"},
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"],
                "properties": {"name": {"type": "string"}, "count": {"type": "integer"}}}}}})
}

#[tokio::test]
async fn unknown_fields_are_dropped_told_or_refused() {
    let harness = Harness::new().await;
    define(&harness, tools(sized())).await;
    let odd = || tool("a", json!({"size": 1, "odd": 1, "parts": [{"name": "x", "odd": 2}]}));
    let strict = harness.post(&format!("{TOOLS}?fieldValidation=Strict"), odd()).await;
    strict.refused(
        400,
        "BadRequest",
        "strict decoding error: unknown field \"spec.odd\", unknown field \"spec.parts[0].odd\"",
    );
    let warned = harness.post(&format!("{TOOLS}?fieldValidation=Warn&dryRun=All"), odd()).await;
    assert_eq!(
        warned.warnings(),
        ["299 - \"unknown field \\\"spec.odd\\\"\"", "299 - \"unknown field \\\"spec.parts[0].odd\\\"\""]
    );
    let created = harness.post(&format!("{TOOLS}?fieldValidation=Ignore"), odd()).await;
    assert_eq!(created.warnings(), [""; 0]);
    assert_eq!(created.expect(201)["spec"], json!({"size": 1, "color": "red", "parts": [{"name": "x"}]}));
    let path = format!("{TOOLS}/a?fieldValidation=Strict");
    harness.patch(&path, json!({"spec": {"odd": 1}})).await.refused(422, "Invalid", "unknown field \"spec.odd\"");
}

#[tokio::test]
async fn objects_are_held_to_their_schema() {
    let harness = Harness::new().await;
    define(&harness, tools(sized())).await;
    let refused = harness.post(TOOLS, tool("a", json!({"size": "big"}))).await;
    let refused = refused.refused(
        422,
        "Invalid",
        "Tool.a.io \"a\" is invalid: spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
    );
    assert_eq!(refused["details"]["causes"][0]["reason"], "FieldValueTypeInvalid");
    harness.post(TOOLS, tool("a", json!({}))).await.refused(422, "Invalid", "spec.size: Required value");
    let twice = json!({"size": 1, "parts": [{"name": "x"}, {"name": "x"}]});
    harness.post(TOOLS, tool("a", twice)).await.refused(
        422,
        "Invalid",
        "spec.parts[1]: Duplicate value: {\"name\":\"x\"}",
    );
    harness.post(TOOLS, tool("a", json!({"size": 1}))).await.expect(201);
    let path = format!("{TOOLS}/a");
    harness.patch(&path, json!({"spec": {"size": 0}})).await.refused(
        422,
        "Invalid",
        "should be greater than or equal to 1",
    );
}

#[tokio::test]
async fn what_is_stored_is_filled_in_when_it_is_read() {
    let harness = Harness::new().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tools.a.io";
    let created = define(&harness, tools(json!({"type": "object", "properties": {"a": {"type": "string"}}}))).await;
    harness.post(TOOLS, tool("x", json!({}))).await.expect(201);
    let mut changed = created;
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["a"]["default"] =
        json!("new");
    harness.put(path, changed).await.expect(200);
    crate::custom::eventually(&harness, &format!("{TOOLS}/x"), |answer| answer.json["spec"]["a"] == "new").await;
    let listed = harness.get(TOOLS).await.expect(200);
    assert_eq!(listed["items"][0]["spec"], json!({"a": "new"}));
    // What is older than a rule may stay, as long as it does not change.
    let mut stricter = harness.get(path).await.expect(200);
    stricter["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["a"] =
        json!({"type": "string", "maxLength": 1});
    harness.post(TOOLS, tool("y", json!({"a": "long"}))).await.expect(201);
    harness.put(path, stricter).await.expect(200);
    let long = || tool("z", json!({"a": "long"}));
    let url = format!("{TOOLS}?dryRun=All");
    for _ in 0..2000 {
        if harness.post(&url, long()).await.code == 422 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    harness.post(&url, long()).await.refused(422, "Invalid", "spec.a: Too long");
    harness.patch(&format!("{TOOLS}/y"), json!({"metadata": {"labels": {"l": "m"}}})).await.expect(200);
    harness.patch(&format!("{TOOLS}/y"), json!({"spec": {"a": "longer"}})).await.refused(422, "Invalid", "Too long");
}

#[tokio::test]
async fn apply_merges_lists_by_their_keys() {
    let harness = Harness::new().await;
    define(&harness, tools(sized())).await;
    let apply = |manager: &str, parts: Value, force: bool| {
        let url = format!("{TOOLS}/a?fieldManager={manager}&force={force}");
        let body = tool("a", json!({"size": 1, "parts": parts})).to_string();
        let harness = &harness;
        async move { harness.raw(Method::PATCH, &url, &[("content-type", "application/apply-patch+yaml")], body).await }
    };
    apply("one", json!([{"name": "x", "count": 1}]), false).await.expect(201);
    let both = apply("two", json!([{"name": "y", "count": 2}]), false).await.expect(200);
    assert_eq!(both["spec"]["parts"], json!([{"name": "x", "count": 1}, {"name": "y", "count": 2}]));
    let conflict = apply("two", json!([{"name": "x", "count": 5}]), false).await;
    conflict.refused(409, "Conflict", "conflict with \"one\"");
    let forced = apply("two", json!([{"name": "x", "count": 5}]), true).await.expect(200);
    assert_eq!(forced["spec"]["parts"], json!([{"name": "x", "count": 5}]));
}

#[tokio::test]
async fn schemas_that_say_nothing_clear_are_refused() {
    let harness = Harness::new().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let check = |spec: Value, text: &'static str| {
        let harness = &harness;
        async move {
            let refused = harness.post(path, tools(spec)).await.refused(422, "Invalid", text);
            assert_eq!(refused["details"]["group"], "apiextensions.k8s.io");
        }
    };
    check(
        json!({"properties": {}}),
        "properties[spec].type: Required value: must not be empty for specified object fields",
    )
    .await;
    check(
        json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
        "uniqueItems cannot be set to true",
    )
    .await;
    check(json!({"type": "string", "pattern": "("}), "must be a valid regular expression").await;
    check(json!({"type": "integer", "default": "x"}), "default: Invalid value").await;
    let deep =
        (0..150).fold(json!({"type": "string"}), |below, _| json!({"type": "object", "properties": {"a": below}}));
    check(deep, "must not be nested more than 100 levels deep").await;
    let mut group = definition("tools", "Tool", json!([version("v1", json!({"type": "object"}))]));
    group["spec"]["group"] = json!("a.k8s.io");
    group["metadata"]["name"] = json!("tools.a.k8s.io");
    harness.post(path, group).await.refused(422, "Invalid", "protected groups must have approval annotation");
}
