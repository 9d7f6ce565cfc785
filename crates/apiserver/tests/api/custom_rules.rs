//! Custom resources and the rules of their definitions (`x-kubernetes-validations`).

use serde_json::json;

use crate::custom::{TOOLS, define, tool, tools};
use crate::harness::Harness;

#[tokio::test]
async fn objects_meet_rules() {
    let harness = Harness::new().await;
    let rules = json!([{"rule": "self.min <= self.max", "message": "min must not exceed max"},
        {"rule": "self.name == oldSelf.name", "messageExpression": "'name was ' + oldSelf.name", "fieldPath": ".name",
            "reason": "FieldValueForbidden"}]);
    let spec = json!({"type": "object", "required": ["min", "max", "name"], "x-kubernetes-validations": rules,
        "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string"}}});
    define(&harness, tools(spec)).await;
    let make = |min: i64, max: i64| tool("a", json!({"min": min, "max": max, "name": "n"}));
    let refused = harness.post(TOOLS, make(2, 1)).await;
    refused.refused(422, "Invalid", "spec: Invalid value: \"object\": min must not exceed max");
    let incomplete = harness.post(TOOLS, tool("a", json!({"min": 1}))).await;
    incomplete.refused(422, "Invalid", "some validation rules were not checked because the object was invalid");
    harness.post(TOOLS, make(1, 2)).await.expect(201);
    let path = format!("{TOOLS}/a");
    let refused = harness.patch(&path, json!({"spec": {"name": "other"}})).await;
    let refused = refused.refused(422, "Invalid", "spec.name: Forbidden: name was n");
    assert_eq!(refused["details"]["causes"][0]["reason"], "FieldValueForbidden");
    harness.patch(&path, json!({"spec": {"max": 3}})).await.expect(200);
}

#[tokio::test]
async fn rules_that_mean_nothing_are_refused() {
    let harness = Harness::new().await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    for (rule, text) in [("self.z == 1", "undefined field 'z'"), ("self = 1", "Syntax error")] {
        let spec = json!({"type": "object", "properties": {"x": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": rule}]});
        harness.post(definitions, tools(spec)).await.refused(422, "Invalid", text);
    }
}
