//! Dropping what a schema does not name.
//!
//! `apiVersion`, `kind` and `metadata` of objects and embedded objects always stay; an embedded object's metadata is held
//! to ObjectMeta. Invariant: what is dropped is told, at most [`MAX_TOLD`] fields of it.

use kedge_schema::{FieldValidation, Schema, type_by_name, validate_fields};
use serde_json::Value;

use crate::node::{Additional, Node};
use crate::place::Place;

const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// How many dropped fields are told.
const MAX_TOLD: usize = 100;

/// Drops what the schema does not name; the paths of what was dropped.
pub(crate) fn prune(object: &mut Value, root: &Node) -> Vec<String> {
    let mut dropped = Vec::new();
    visit(object, root, true, &Place::ROOT, &mut dropped);
    dropped
}

fn visit(value: &mut Value, node: &Node, is_root: bool, place: &Place<'_>, dropped: &mut Vec<String>) {
    match value {
        Value::Object(_) => object(value, node, is_root, place, dropped),
        Value::Array(list) => {
            let Some(items) = &node.items else { return };
            for (index, item) in list.iter_mut().enumerate() {
                visit(item, items, false, &place.index(index), dropped);
            }
        }
        _ => {}
    }
}

fn object(value: &mut Value, node: &Node, is_root: bool, place: &Place<'_>, dropped: &mut Vec<String>) {
    let Value::Object(fields) = value else { return };
    fields.retain(|name, value| {
        let place = place.child(name);
        let is_meta = matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
        if is_meta && (is_root || node.embedded) {
            if name == "metadata" && !is_root {
                embedded_metadata(value, &place, dropped);
            }
            return true;
        }
        match (node.properties.get(name), &node.additional) {
            (Some(property), _) => visit(value, property, false, &place, dropped),
            (None, Additional::Schema(values)) => visit(value, values, false, &place, dropped),
            (None, Additional::Any(true)) => {}
            _ if node.preserves => {}
            _ => {
                tell(place.path().to_string(), dropped);
                return false;
            }
        }
        true
    });
}

fn embedded_metadata(value: &mut Value, place: &Place<'_>, dropped: &mut Vec<String>) {
    let schema = type_by_name(METADATA).map_or_else(Schema::untyped, Schema::of);
    let Ok(decoded) = validate_fields(value.clone(), schema, FieldValidation::Warn) else { return };
    for warning in decoded.warnings {
        let name = warning.trim_start_matches("unknown field \"").trim_end_matches('"');
        tell(format!("{}.{name}", place.path()), dropped);
    }
    *value = decoded.value;
}

fn tell(path: String, dropped: &mut Vec<String>) {
    if dropped.len() < MAX_TOLD {
        dropped.push(path);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_named_goes_and_is_told() {
        let node = Node::read(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"strict": {"type": "object", "properties": {"x": {"type": "integer"}}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {}}}},
            "any": {"type": "object", "additionalProperties": true},
            "list": {"type": "array", "items": {"type": "object", "properties": {"x": {}}}},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}}
        }}}}));
        let mut object = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a"}, "extra": 1, "spec": {
            "a": "", "b": 1, "free": {"y": 1, "strict": {"x": 1, "y": 2}}, "map": {"k": {"x": 1, "y": 2}},
            "any": {"k": {"y": 1}}, "list": [{"x": 1, "y": 2}],
            "embedded": {"apiVersion": "v1", "kind": "B", "metadata": {"name": "b", "odd": 1}, "spec": {"z": 1}, "w": 1}}});
        let mut dropped = prune(&mut object, &node);
        dropped.sort();
        assert_eq!(
            dropped,
            [
                "extra",
                "spec.b",
                "spec.embedded.metadata.odd",
                "spec.embedded.spec.z",
                "spec.embedded.w",
                "spec.free.strict.y",
                "spec.list[0].y",
                "spec.map.k.y"
            ]
        );
        assert_eq!(object["spec"]["free"], json!({"y": 1, "strict": {"x": 1}}));
        assert_eq!(object["spec"]["embedded"]["metadata"], json!({"name": "b"}));
    }
}
