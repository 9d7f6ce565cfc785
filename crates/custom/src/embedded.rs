//! Whole objects within custom resources: they say what they are, and their metadata is as that of any object.

use kedge_kinds::embedded_metadata_errors;
use kedge_meta::{FieldError, formats};
use serde_json::Value;

use crate::node::Node;
use crate::place::Place;

/// Appends what is wrong with the objects within `value`.
pub(crate) fn check(value: &Value, node: &Node, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    if node.embedded && value.is_object() {
        embedded(value, place, errors);
    }
    node.for_each_below(value, place, &mut |value, node, place| check(value, node, place, errors));
}

fn embedded(object: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    for (field, wrong) in [("apiVersion", version as fn(&str) -> Option<String>), ("kind", kind)] {
        let place = place.child(field);
        let path = place.path();
        match object.get(field) {
            None => errors.push(FieldError::required(&path, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(FieldError::invalid(&path, &object[field], "must not be empty"));
            }
            Some(Value::String(text)) => {
                errors.extend(wrong(text).map(|why| FieldError::invalid(&path, &object[field], &why)));
            }
            Some(other) => errors.push(FieldError::invalid(&path, other, "must be a string")),
        }
    }
    match object.get("metadata") {
        None => {}
        Some(metadata) if metadata.is_object() => {
            let path = place.path();
            errors.extend(embedded_metadata_errors(metadata).into_iter().map(|error| error.below(&path)));
        }
        Some(other) => {
            errors.push(FieldError::invalid(&place.child("metadata").path(), other, "must be an object"));
        }
    }
}

fn version(text: &str) -> Option<String> {
    (text.matches('/').count() > 1).then(|| format!("unexpected GroupVersion string: {text}"))
}

fn kind(text: &str) -> Option<String> {
    let wrong = formats::label_1035(&text.to_lowercase());
    (!wrong.is_empty()).then(|| format!("may have mixed case, but should otherwise match: {}", wrong.join(",")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_within_others_are_objects() {
        let whole = json!({"type": "object", "x-kubernetes-embedded-resource": true,
            "x-kubernetes-preserve-unknown-fields": true});
        let node = Node::read(&json!({"type": "object", "properties": {
            "one": whole, "list": {"type": "array", "items": whole},
            "map": {"type": "object", "additionalProperties": whole}}}));
        let check = |value: Value, expected: &[&str]| {
            let mut errors = Vec::new();
            check(&value, &node, &Place::ROOT, &mut errors);
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let missing = expected.iter().find(|start| !texts.iter().any(|text| text.starts_with(**start)));
            assert!(missing.is_none() && texts.len() == expected.len(), "{texts:?}");
        };
        let pod = |metadata: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata});
        check(json!({"one": pod(json!({"name": "a", "namespace": "d", "labels": {"a": "b"}}))}), &[]);
        check(json!({"one": {"apiVersion": "apps/v1", "kind": "Deployment"}}), &[]);
        check(json!({"one": {}}), &["one.apiVersion: Required value", "one.kind: Required value"]);
        check(
            json!({"list": [{"apiVersion": "a/b/c", "kind": "No Kind"}]}),
            &[
                "list[0].apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                "list[0].kind: Invalid value: \"No Kind\": may have mixed case",
            ],
        );
        check(
            json!({"map": {"x": pod(json!({"name": "a/b", "namespace": "N", "labels": {"a": "-"}}))}}),
            &[
                "map[x].metadata.name: Invalid value: \"a/b\"",
                "map[x].metadata.namespace: Invalid value: \"N\"",
                "map[x].metadata.labels: Invalid value: \"-\"",
            ],
        );
        check(json!({"one": pod(json!(1))}), &["one.metadata: Invalid value: 1: must be an object"]);
    }
}
