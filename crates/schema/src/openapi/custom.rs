//! Definitions of custom resources, made of the schemas that they were defined with.
//!
//! Version 3 takes them as they are. Version 2 leaves out what it cannot say, as upstream does: alternatives, nulls, and
//! what lies within free objects.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::ServedResource;
use super::definitions::{Dialect, META};
use super::operations::definition_of;

/// The definitions of the custom resources among `resources`, and of their lists, by name.
pub(super) fn definitions(resources: &[&ServedResource], dialect: Dialect) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for resource in resources {
        let Some(schema) = resource.schema.as_deref() else { continue };
        let schema = serde_json::from_str(schema).unwrap_or_else(|_| json!({"type": "object"}));
        let (group, version) = (&resource.group, &resource.version);
        let list = format!("{}List", resource.kind);
        let name = definition_of(group, version, &resource.kind);
        found.insert(definition_of(group, version, &list), list_of(resource, &list, &name, dialect));
        found.insert(name, object(resource, schema, dialect));
    }
    found
}

/// Definitions that those of custom resources refer to.
pub(super) fn referred() -> [String; 2] {
    [format!("{META}ObjectMeta"), format!("{META}ListMeta")]
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

// What upstream's own tests look for in explanations, and no more of the prose.
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object.";
const KIND: &str = "Kind is a string value representing the REST resource this object represents.";

fn refer(dialect: Dialect, name: &str) -> Value {
    let reference = dialect.reference(&format!("{META}{name}"));
    let description = "Standard object's metadata.";
    match dialect {
        Dialect::V2 => json!({"description": description, "$ref": reference["$ref"]}),
        Dialect::V3 => json!({"description": description, "allOf": [reference]}),
    }
}

fn kinds(resource: &ServedResource, kind: &str) -> Value {
    json!([{"group": resource.group, "version": resource.version, "kind": kind}])
}

fn object(resource: &ServedResource, mut schema: Value, dialect: Dialect) -> Value {
    if dialect == Dialect::V2 {
        narrow(&mut schema);
    }
    if !schema.is_object() {
        schema = json!({});
    }
    // kubectl would take every field that is named here for all that there are.
    if schema["x-kubernetes-preserve-unknown-fields"] == true && dialect == Dialect::V2 {
        return json!({"type": "object", "x-kubernetes-group-version-kind": kinds(resource, &resource.kind)});
    }
    schema["x-kubernetes-group-version-kind"] = kinds(resource, &resource.kind);
    schema["type"] = json!("object");
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    let properties = &mut schema["properties"];
    properties["apiVersion"] = text(API_VERSION);
    properties["kind"] = text(KIND);
    properties["metadata"] = refer(dialect, "ObjectMeta");
    schema
}

fn list_of(resource: &ServedResource, list: &str, name: &str, dialect: Dialect) -> Value {
    let items = format!("List of {}.", resource.resource);
    json!({"type": "object", "description": format!("{list} is a list of {}", resource.kind), "required": ["items"],
        "properties": {"apiVersion": text(API_VERSION), "kind": text(KIND), "metadata": refer(dialect, "ListMeta"),
            "items": {"description": items, "type": "array", "items": dialect.reference(name)}},
        "x-kubernetes-group-version-kind": kinds(resource, list)})
}

/// Leaves out what version 2 cannot say.
fn narrow(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    for field in ["allOf", "oneOf", "anyOf", "not", "default"] {
        fields.remove(field);
    }
    forget_nullable(fields);
    let is = |fields: &Map<String, Value>, field: &str| fields.get(field) == Some(&Value::Bool(true));
    let preserves = is(fields, "x-kubernetes-preserve-unknown-fields");
    let nullable = is(fields, "nullable");
    if nullable || preserves {
        for field in ["items", "properties"] {
            fields.remove(field);
        }
    }
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
    let listless = kind == "array" && !fields.contains_key("items");
    if nullable || listless || (preserves && kind == "object") {
        fields.remove("type");
    }
    fields.remove("nullable");
    for value in fields.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        narrow(value.1);
    }
    for field in ["items", "additionalProperties"] {
        if let Some(below) = fields.get_mut(field) {
            narrow(below);
        }
    }
}

/// What may be null cannot be required.
fn forget_nullable(fields: &mut Map<String, Value>) {
    let nullable = |value: &Value| value.get("nullable") == Some(&Value::Bool(true));
    if fields.get("additionalProperties").is_some_and(nullable) {
        fields.remove("required");
    }
    let names: Vec<Value> = match fields.get("properties").and_then(Value::as_object) {
        Some(properties) => {
            properties.iter().filter(|(_, value)| nullable(value)).map(|(name, _)| name.as_str().into()).collect()
        }
        None => return,
    };
    if let Some(required) = fields.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !names.contains(name));
        if required.is_empty() {
            fields.remove("required");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_leaves_out_what_it_cannot_say() {
        let check = |mut schema: Value, expected: Value| {
            narrow(&mut schema);
            assert_eq!(schema, expected);
        };
        check(json!({"type": "string", "nullable": true, "default": "x"}), json!({}));
        check(
            json!({"type": "array", "items": {"type": "string", "anyOf": []}}),
            json!({"type": "array", "items": {"type": "string"}}),
        );
        check(
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string", "nullable": true}}}),
            json!({"type": "object", "properties": {"a": {}}}),
        );
        check(
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {}}}),
            json!({"x-kubernetes-preserve-unknown-fields": true}),
        );
    }
}
