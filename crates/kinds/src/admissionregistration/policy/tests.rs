//! What policies and bindings may say.

use serde_json::json;

use super::*;
use crate::admissionregistration::binding::PolicyBinding;

fn texts_of(strategy: &dyn Strategy, mut object: Value) -> Vec<String> {
    let mut errors = Vec::new();
    strategy.default(&mut object);
    strategy.validate_create(&object, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn constraints(operation: &str) -> Value {
    json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
        "operations": [operation]}]})
}

#[test]
fn policies_are_defaulted_and_checked() {
    let policy = Policy { rules: "validations" };
    let of = |spec: Value| json!({"metadata": {"name": "p"}, "spec": spec});
    let fine = json!({"matchConstraints": constraints("*"), "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "c", "expression": "params.x == 1"}],
        "variables": [{"name": "a", "expression": "object.a"}, {"name": "b", "expression": "variables.a"}],
        "auditAnnotations": [{"key": "k", "valueExpression": "string(variables.b)"}],
        "validations": [{"expression": "variables.b == 1", "message": "no", "reason": "Forbidden"}]});
    assert_eq!(texts_of(&policy, of(fine)), [""; 0]);
    let wrong = json!({"failurePolicy": "Never", "paramKind": {"apiVersion": "a/b/c", "kind": "-"},
        "matchConstraints": {"resourceRules": [{"apiGroups": ["*", ""], "apiVersions": [], "resources": [],
            "operations": ["*", "READ"], "resourceNames": ["a", "a"]}]},
        "matchConditions": [{"name": "-", "expression": "variables.a"}],
        "variables": [{"name": "for", "expression": "variables.later"}],
        "validations": [{"expression": " "}, {"expression": "object.", "message": " ", "reason": "Never"},
            {"expression": "x == 1", "messageExpression": "authorizer.x", "message": "a\nb"}],
        "auditAnnotations": [{"key": "k", "valueExpression": ""}, {"key": "k", "valueExpression": "'x'"}]});
    let texts = texts_of(&policy, of(wrong));
    for expected in [
        "spec.failurePolicy: Unsupported value: \"Never\"",
        "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
        "spec.paramKind.kind: Invalid value: \"-\": may have mixed case",
        "spec.matchConstraints.resourceRules[0].resourceNames[1]: Duplicate value: \"a\"",
        "spec.matchConstraints.resourceRules[0].operations: Invalid value: [\"*\",\"READ\"]: if '*' is present",
        "spec.matchConstraints.resourceRules[0].operations[1]: Unsupported value: \"READ\"",
        "spec.matchConstraints.resourceRules[0].apiGroups: Invalid value",
        "spec.matchConstraints.resourceRules[0].apiVersions: Required value",
        "spec.matchConstraints.resourceRules[0].resources: Required value",
        "spec.matchConditions[0].expression: Invalid value: \"variables.a\": compilation failed",
        "spec.matchConditions[0].name: Invalid value: \"-\"",
        "spec.variables[0].name: Invalid value: \"for\": must be a valid CEL identifier",
        "spec.variables[0].expression: Invalid value: \"variables.later\": compilation failed: ERROR: <input>:1:10: undefined field 'later'",
        "spec.validations[0].expression: Required value: expression is not specified",
        "spec.validations[1].expression: Invalid value: \"object.\": compilation failed",
        "spec.validations[1].message: Invalid value: \" \": must be non-empty if specified",
        "spec.validations[1].reason: Unsupported value: \"Never\"",
        "spec.validations[2].expression: Invalid value: \"x == 1\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'x'",
        "spec.validations[2].messageExpression: Invalid value: \"authorizer.x\"",
        "spec.validations[2].message: Invalid value: \"a\\nb\": must not contain line breaks",
        "spec.auditAnnotations[0].valueExpression: Required value: valueExpression is not specified",
        "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
    ] {
        assert!(texts.iter().any(|text| text.contains(expected)), "{expected}: {texts:#?}");
    }
    assert_eq!(
        texts_of(&policy, of(json!({}))),
        [
            "spec.matchConstraints: Required value",
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
            "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
        ]
    );
}

#[test]
fn mutations_are_checked() {
    let policy = Policy { rules: "mutations" };
    let check = |operation: &str, mutation: Value, expected: &[&str]| {
        let spec = json!({"matchConstraints": constraints(operation), "reinvocationPolicy": "Never",
            "mutations": [mutation]});
        let texts = texts_of(&policy, json!({"metadata": {"name": "p"}, "spec": spec}));
        assert_eq!(texts.len(), expected.len(), "{texts:#?}");
        for (text, expected) in texts.iter().zip(expected) {
            assert!(text.contains(expected), "{text}");
        }
    };
    let apply =
        |expression: &str| json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}});
    check("CREATE", apply("Object{spec: Object.spec{x: 1}}"), &[]);
    check("DELETE", apply("Object{}"), &["resourceRules.operations: Unsupported value: \"DELETE\""]);
    check(
        "UPDATE",
        apply("Object{spec: Object.other{}}"),
        &["mutations[0].applyConfiguration.expression: Invalid value"],
    );
    check("UPDATE", json!({"patchType": "JSONPatch"}), &["mutations[0].jsonPatch: Required value: must be specified"]);
    check("UPDATE", json!({"patchType": "Other"}), &["mutations[0].patchType: Unsupported value"]);
    let texts = texts_of(&policy, json!({"spec": {"matchConstraints": constraints("CREATE")}}));
    assert_eq!(
        texts,
        [
            "spec.mutations: Required value: mutations must contain at least one item",
            "spec.reinvocationPolicy: Required value",
        ]
    );
}

#[test]
fn bindings_are_defaulted_and_checked() {
    let check = |spec: Value, expected: &[&str]| {
        let texts = texts_of(&PolicyBinding, json!({"kind": "ValidatingAdmissionPolicyBinding", "spec": spec}));
        assert_eq!(texts.len(), expected.len(), "{texts:#?}");
        for (text, expected) in texts.iter().zip(expected) {
            assert!(text.contains(expected), "{text}");
        }
    };
    check(json!({"policyName": "p", "validationActions": ["Deny", "Audit"], "matchResources": {}}), &[]);
    check(
        json!({}),
        &["spec.policyName: Required value", "spec.validationActions: Required value: at least one validation action"],
    );
    check(
        json!({"policyName": "P", "validationActions": ["Deny", "Warn", "Warn"],
            "paramRef": {"name": "a", "selector": {}, "parameterNotFoundAction": "Maybe"}}),
        &[
            "spec.policyName: Invalid value: \"P\"",
            "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
            "spec.paramRef.selector: Forbidden",
            "spec.paramRef.parameterNotFoundAction: Unsupported value: \"Maybe\"",
            "spec.validationActions[2]: Duplicate value: \"Warn\"",
            "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Warn\"]: must not contain both Deny and Warn",
        ],
    );
    check(
        json!({"policyName": "p", "validationActions": ["Deny"], "paramRef": {}}),
        &["spec.paramRef: Required value: one of name or selector", "spec.paramRef.parameterNotFoundAction: Required"],
    );
}
