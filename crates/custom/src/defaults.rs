//! Filling in what a schema says is to stand where nothing does.
//!
//! Fields that are null and may not be are taken as absent, where there is a default. Invariant: filling in twice changes
//! nothing.

use serde_json::Value;

use crate::node::{Additional, Node};

/// Fills in defaults below `value`.
pub(crate) fn fill(value: &mut Value, node: &Node) {
    match value {
        Value::Object(fields) => {
            for (name, property) in &node.properties {
                let Some(default) = &property.default else { continue };
                let missing = match fields.get(name) {
                    None => true,
                    Some(value) => value.is_null() && !property.nullable,
                };
                if missing {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                match (node.properties.get(name), &node.additional) {
                    (Some(property), _) => fill(value, property),
                    (None, Additional::Schema(values)) => fill_entry(value, values),
                    _ => {}
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &node.items {
                list.iter_mut().for_each(|item| fill_entry(item, items));
            }
        }
        _ => {}
    }
}

/// An item or an entry: null is the default where it may not be null.
fn fill_entry(value: &mut Value, node: &Node) {
    if let (true, false, Some(default)) = (value.is_null(), node.nullable, &node.default) {
        *value = default.clone();
    }
    fill(value, node);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_fill_what_is_missing() {
        let node = Node::read(&json!({"type": "object", "properties": {
            "a": {"type": "string", "default": "x"},
            "n": {"type": "string", "nullable": true, "default": "x"},
            "deep": {"type": "object", "default": {}, "properties": {"b": {"type": "integer", "default": 3}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "boolean", "default": true}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"d": {"default": 1}}}},
            "absent": {"type": "object", "properties": {"b": {"default": 1}}}}}));
        let mut value = json!({"a": null, "n": null, "list": [{}, {"c": false}], "map": {"k": {}}});
        let expected = json!({"a": "x", "n": null, "deep": {"b": 3}, "list": [{"c": true}, {"c": false}],
            "map": {"k": {"d": 1}}});
        for _ in 0..2 {
            fill(&mut value, &node);
            assert_eq!(value, expected);
        }
    }
}
