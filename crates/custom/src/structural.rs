//! Whether a schema is structural: types stand outside of logic, and logic speaks only of what stands outside of it.
//!
//! The rules and texts are upstream's. Invariant: the errors come sorted, whatever the order of fields.

use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::json::{at, items, text, truth};
use crate::node::MAX_DEPTH;
use crate::place::Place;

/// Where in a schema a position stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What is wrong with the schemas of a definition.
pub(crate) fn check_all(definition: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, version) in items(definition, &["spec", "versions"]).iter().enumerate() {
        let Some(schema) = at(version, &["schema", "openAPIV3Schema"]) else { continue };
        let spec = Place::ROOT.child("spec");
        let versions = spec.child("versions");
        let version = versions.index(index);
        let place = version.child("schema");
        errors.extend(check(schema, &place.child("openAPIV3Schema")));
    }
    errors
}

/// What keeps a schema from being structural.
pub(crate) fn check(schema: &Value, place: &Place<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if is_deeper_than(schema, MAX_DEPTH) {
        // DIVERGES: upstream's bound is that of its decoder.
        let why = format!("must not be nested more than {MAX_DEPTH} levels deep");
        errors.push(FieldError::forbidden(&place.path(), &why));
        return errors;
    }
    structure(schema, Level::Root, place, &mut errors);
    completeness(schema, Some(schema), place, place, &mut errors);
    errors.sort_by_key(ToString::to_string);
    errors
}

fn is_deeper_than(schema: &Value, left: usize) -> bool {
    let below = |schema: &Value| left == 0 || is_deeper_than(schema, left - 1);
    let maps = ["properties"].iter().filter_map(|field| schema.get(field)?.as_object()).flat_map(|map| map.values());
    let lists = ["allOf", "anyOf", "oneOf"].iter().flat_map(|field| items(schema, &[field]));
    let single = ["items", "not", "additionalProperties"].iter().filter_map(|field| schema.get(field));
    maps.chain(lists).chain(single.filter(|schema| schema.is_object())).any(below)
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let all = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    all.map(|(name, property)| (name.as_str(), property))
}

fn structure(schema: &Value, level: Level, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let kind = text(schema, &["type"]);
    let embedded = truth(schema, &["x-kubernetes-embedded-resource"]);
    let below = at(schema, &["items"]).filter(|items| items.is_object());
    if kind == "array" && below.is_none() {
        errors.push(FieldError::required(&place.child("items").path(), "must be specified"));
    }
    if let Some(items) = below {
        structure(items, Level::Item, &place.child("items"), errors);
    }
    for (name, property) in properties(schema) {
        structure(property, Level::Field, &place.child("properties").key(name), errors);
    }
    if let Some(additional) = at(schema, &["additionalProperties"]) {
        let place = place.child("additionalProperties");
        if level == Level::Root {
            errors.push(FieldError::forbidden(&place.path(), "must not be used at the root"));
        }
        if embedded {
            let why = "must not be used if x-kubernetes-embedded-resource is set";
            errors.push(FieldError::forbidden(&place.path(), why));
        }
        if additional.is_object() {
            structure(additional, Level::Field, &place, errors);
        }
    }
    extensions(schema, place, errors);
    logic(schema, is_int_or_string(schema), place, errors);
    types(schema, kind, embedded, level, place, errors);
    metadata(schema, level == Level::Root || embedded, level, place, errors);
}

fn extensions(schema: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    if !truth(schema, &["x-kubernetes-int-or-string"]) {
        return;
    }
    for field in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if truth(schema, &[field]) {
            let why = "must be false if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(&place.child(field).path(), &json!(true), why));
        }
    }
}

fn types(schema: &Value, kind: &str, embedded: bool, level: Level, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let own = place.child("type").path();
    let preserves = truth(schema, &["x-kubernetes-preserve-unknown-fields"]);
    let free = preserves || truth(schema, &["x-kubernetes-int-or-string"]);
    let why = "must be object if x-kubernetes-embedded-resource is true";
    match (embedded, kind) {
        (true, "object") => {}
        (true, "") => errors.push(FieldError::required(&own, why)),
        (true, _) => errors.push(FieldError::invalid(&own, &json!(kind), why)),
        (false, "") if !free => {
            let why = match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            };
            errors.push(FieldError::required(&own, why));
        }
        _ => {}
    }
    if level == Level::Root && !matches!(kind, "" | "object") {
        errors.push(FieldError::invalid(&own, &json!(kind), "must be object at the root"));
    }
    if embedded && !preserves && properties(schema).next().is_none() {
        let why =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(&place.child("properties").path(), why));
    }
}

fn metadata(schema: &Value, is_object: bool, level: Level, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let place = place.child("properties");
    for (name, property) in properties(schema) {
        let kind = text(property, &["type"]);
        let own = place.key(name);
        match name {
            "kind" | "apiVersion" if is_object && kind != "string" => {
                errors.push(FieldError::invalid(&own.child("type").path(), &json!(kind), "must be string"));
            }
            "metadata" => {
                if is_object && kind != "object" {
                    errors.push(FieldError::invalid(&own.child("type").path(), &json!(kind), "must be object"));
                }
                if level == Level::Root && !says_names_only(property) {
                    let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
                    errors.push(FieldError::forbidden(&own.path(), why));
                }
            }
            _ => {}
        }
    }
}

/// Whether a schema of the object's metadata says nothing but what its names look like.
fn says_names_only(schema: &Value) -> bool {
    let names = properties(schema).all(|(name, _)| matches!(name, "name" | "generateName"));
    let plain = ["type", "properties", "default", "description", "title"];
    names && schema.as_object().is_none_or(|fields| fields.keys().all(|field| plain.contains(&field.as_str())))
}

/// The two shapes in which integers or strings may be told by their types.
fn is_int_or_string(schema: &Value) -> (bool, bool) {
    let both = json!([{"type": "integer"}, {"type": "string"}]);
    let any = schema.get("anyOf") == Some(&both);
    let all = items(schema, &["allOf"]).first().is_some_and(|first| first.get("anyOf") == Some(&both));
    (any, all)
}

/// `skips`: whether `anyOf`, and `anyOf` within the first `allOf`, are the well-known shape.
fn logic(schema: &Value, skips: (bool, bool), place: &Place<'_>, errors: &mut Vec<FieldError>) {
    for field in ["anyOf", "allOf", "oneOf"] {
        if field == "anyOf" && skips.0 {
            continue;
        }
        for (index, nested_schema) in items(schema, &[field]).iter().enumerate() {
            let skips = (field == "allOf" && index == 0 && skips.1, false);
            nested(nested_schema, skips, &place.child(field).index(index), errors);
        }
    }
    if let Some(not) = at(schema, &["not"]) {
        nested(not, (false, false), &place.child("not"), errors);
    }
    let pattern = text(schema, &["pattern"]);
    if let Err(wrong) = kedge_expressions::compile_pattern(pattern) {
        let why = format!("must be a valid regular expression, but isn't: {wrong}");
        errors.push(FieldError::invalid(&place.child("pattern").path(), &json!(pattern), &why));
    }
}

/// What may not stand within logic, and why.
const NOT_NESTED: [(&str, &str); 12] = [
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
];

fn nested(schema: &Value, skips: (bool, bool), place: &Place<'_>, errors: &mut Vec<FieldError>) {
    logic(schema, skips, place, errors);
    if let Some(items) = at(schema, &["items"]) {
        nested(items, (false, false), &place.child("items"), errors);
    }
    for (name, property) in properties(schema) {
        nested(property, (false, false), &place.child("properties").key(name), errors);
    }
    for (field, why) in NOT_NESTED {
        let said = at(schema, &[field]).is_some_and(|value| *value != json!("") && *value != json!(false));
        if said {
            errors.push(FieldError::forbidden(&place.child(field).path(), why));
        }
    }
    if !items(schema, &["x-kubernetes-validations"]).is_empty() {
        let path = place.child("x-kubernetes-validations").path();
        errors.push(FieldError::forbidden(&path, "must be empty to be structural"));
    }
    if schema.pointer("/properties/metadata").is_some() {
        let path = place.child("properties").key("metadata").path();
        errors.push(FieldError::forbidden(&path, "must not be specified in a nested context"));
    }
}

/// What logic speaks of stands outside of it.
fn completeness(
    logic: &Value,
    structure: Option<&Value>,
    structural: &Place<'_>,
    logical: &Place<'_>,
    errors: &mut Vec<FieldError>,
) {
    if let Some(not) = at(logic, &["not"]) {
        nested_completeness(not, structure, structural, &logical.child("not"), errors);
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        for (index, nested) in items(logic, &[field]).iter().enumerate() {
            nested_completeness(nested, structure, structural, &logical.child(field).index(index), errors);
        }
    }
    if std::ptr::eq(logical, structural) {
        structural_children(logic, structural, errors);
    }
}

/// Logic at deeper places of the structure is complete as well.
fn structural_children(schema: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    for (name, property) in properties(schema) {
        let all = place.child("properties");
        let own = all.key(name);
        completeness(property, Some(property), &own, &own, errors);
    }
    for field in ["items", "additionalProperties"] {
        if let Some(below) = at(schema, &[field]).filter(|below| below.is_object()) {
            let own = place.child(field);
            completeness(below, Some(below), &own, &own, errors);
        }
    }
}

fn nested_completeness(
    nested: &Value,
    structure: Option<&Value>,
    structural: &Place<'_>,
    logical: &Place<'_>,
    errors: &mut Vec<FieldError>,
) {
    let Some(structure) = structure else {
        let why = format!("because it is defined in {}", logical.path());
        errors.push(FieldError::required(&structural.path(), &why));
        return;
    };
    completeness(nested, Some(structure), structural, logical, errors);
    if let Some(items) = at(nested, &["items"]) {
        let below = at(structure, &["items"]);
        nested_completeness(items, below, &structural.child("items"), &logical.child("items"), errors);
    }
    for (name, property) in properties(nested) {
        let below = structure.get("properties").and_then(|all| all.get(name));
        let (outer, inner) = (structural.child("properties"), logical.child("properties"));
        nested_completeness(property, below, &outer.key(name), &inner.key(name), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn table(schema: Value, expected: &[&str]) {
        let errors = check(&schema, &Place::ROOT.child("s"));
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn structural_schemas() {
        table(
            json!({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}]}, "b": {"type": "array", "items": {"type": "string"}},
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}}},
            "oneOf": [{"required": ["a"]}, {"properties": {"b": {"minItems": 1}}}]}),
            &[],
        );
        table(json!({}), &["s.type: Required value: must not be empty at the root"]);
        table(
            json!({"type": "array"}),
            &[
                "s.items: Required value: must be specified",
                "s.type: Invalid value: \"array\": must be object at the root",
            ],
        );
        table(
            json!({"type": "object", "properties": {"a": {}, "l": {"type": "array", "items": {}}}}),
            &[
                "s.properties[a].type: Required value: must not be empty for specified object fields",
                "s.properties[l].items.type: Required value: must not be empty for specified array items",
            ],
        );
        table(
            json!({"type": "object", "anyOf": [{"properties": {"x": {"type": "string", "description": "d"}}}]}),
            &[
                "s.anyOf[0].properties[x].description: Forbidden: must be empty to be structural",
                "s.anyOf[0].properties[x].type: Forbidden: must be empty to be structural",
                "s.properties[x]: Required value: because it is defined in s.anyOf[0].properties[x]",
            ],
        );
        table(
            json!({"type": "object", "properties": {"a": {"type": "object", "not": {"items": {}}}}}),
            &["s.properties[a].items: Required value: because it is defined in s.properties[a].not.items"],
        );
        table(
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
            &[
                "s.properties[a].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: unclosed group",
            ],
        );
        table(
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            &[
                "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            ],
        );
        table(
            json!({"type": "object", "properties": {"e": {"type": "object", "x-kubernetes-embedded-resource": true}}}),
            &[
                "s.properties[e].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
            ],
        );
    }

    #[test]
    fn deep_schemas_are_refused() {
        let deep = (0..MAX_DEPTH + 1)
            .fold(json!({"type": "string"}), |below, _| json!({"type": "object", "properties": {"a": below}}));
        table(deep, &["s: Forbidden: must not be nested more than 100 levels deep"]);
    }
}
