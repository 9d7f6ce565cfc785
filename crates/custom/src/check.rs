//! Holding an object to its schema: types, bounds, alternatives.
//!
//! The texts are those of upstream's OpenAPI validator. What has not changed since the old object is not held to anything
//! (ratcheting), so that a schema may become stricter than what is stored. Invariant: at most [`MAX_ERRORS`] errors.

use kedge_meta::{FieldError, FieldPath};
use serde_json::Value;

use crate::formats;
use crate::node::{Additional, Bounds, Node};
use crate::place::Place;

/// How many errors are told about one object.
const MAX_ERRORS: usize = 200;

/// Appends what is wrong with `value`; `old` is what stood at the same place before, if that can be said.
pub(crate) fn check(value: &Value, old: Option<&Value>, node: &Node, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    if old == Some(value) || errors.len() >= MAX_ERRORS {
        return;
    }
    check_type(value, node, place, errors);
    match value {
        Value::Object(fields) => {
            check_fields(fields, old, node, place, errors);
            check_embedded(value, node, place, errors);
        }
        Value::Array(list) => check_list(list, old, node, place, errors),
        Value::String(text) => check_text(text, &node.bounds, place, errors),
        Value::Number(_) => check_number(value, &node.bounds, place, errors),
        _ => {}
    }
    check_options(value, &node.bounds, place, errors);
    check_alternatives(value, node, place, errors);
}

/// `spec.x in body`: how messages name a place.
fn named(place: &Place<'_>) -> String {
    match place.path().to_string() {
        path if path.is_empty() => " in body".to_owned(),
        path => format!("{path} in body"),
    }
}

fn invalid(value: &Value, place: &Place<'_>, why: &str, errors: &mut Vec<FieldError>) {
    errors.push(FieldError::invalid(&place.path(), value, &format!("{} {why}", named(place))));
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_type(value: &Value, node: &Node, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let mut wanted: Vec<&str> = match node.int_or_string {
        true => vec!["integer", "string"],
        false if node.kind.is_empty() => return,
        false => vec![&node.kind],
    };
    if node.nullable {
        wanted.push("null");
    }
    let found = kind_of(value);
    let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
    let fits = |kind: &&str| match *kind {
        "number" => matches!(found, "number" | "integer"),
        "integer" => found == "integer" || (found == "number" && whole),
        kind => kind == found,
    };
    if !wanted.iter().any(fits) {
        let why = format!("{} must be of type {}: \"{found}\"", named(place), wanted.join(","));
        errors.push(FieldError::type_invalid(&place.path(), &Value::from(found), &why));
    }
}

type Fields = serde_json::Map<String, Value>;

fn check_fields(fields: &Fields, old: Option<&Value>, node: &Node, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let bounds = &node.bounds;
    for name in bounds.required.iter().filter(|name| !fields.contains_key(*name)) {
        errors.push(FieldError::required(&place.child(name).path(), ""));
    }
    let count = fields.len() as u64;
    if let Some(max) = bounds.properties.max.filter(|max| count > *max) {
        errors.push(FieldError::too_many(&place.path(), fields.len(), usize::try_from(max).unwrap_or(usize::MAX)));
    }
    if let Some(min) = bounds.properties.min.filter(|min| count < *min) {
        let value = Value::from(count);
        invalid(&value, place, &format!("should have at least {min} properties"), errors);
    }
    // A map that is one whole is compared as a whole.
    let old = old.filter(|_| !node.atomic_map);
    for (name, value) in fields {
        let old = old.and_then(|old| old.get(name));
        match (node.properties.get(name), &node.additional) {
            (Some(property), _) => check(value, old, property, &place.child(name), errors),
            (None, Additional::Schema(values)) => check(value, old, values, &place.child(name), errors),
            _ => {}
        }
    }
}

/// An object within an object says what it is.
fn check_embedded(value: &Value, node: &Node, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    if !node.embedded {
        return;
    }
    for field in ["apiVersion", "kind"] {
        if crate::json::text(value, &[field]).is_empty() {
            errors.push(FieldError::required(&place.child(field).path(), "must not be empty"));
        }
    }
    let api_version = crate::json::text(value, &["apiVersion"]);
    if api_version.matches('/').count() > 1 {
        let why = format!("unexpected GroupVersion string: {api_version}");
        errors.push(FieldError::invalid(&place.child("apiVersion").path(), &Value::from(api_version), &why));
    }
}

fn check_list(list: &[Value], old: Option<&Value>, node: &Node, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let count = list.len() as u64;
    if let Some(max) = node.bounds.items.max.filter(|max| count > *max) {
        errors.push(FieldError::too_many(&place.path(), list.len(), usize::try_from(max).unwrap_or(usize::MAX)));
    }
    if let Some(min) = node.bounds.items.min.filter(|min| count < *min) {
        invalid(&Value::from(count), place, &format!("should have at least {min} items"), errors);
    }
    let Some(items) = &node.items else { return };
    let before = correlated(old, node);
    for (index, item) in list.iter().enumerate() {
        let old = before.as_ref().and_then(|before| before.get(&key_of(item, node)).copied());
        check(item, old, items, &place.index(index), errors);
    }
}

/// The old items of a list whose items have keys, by their keys.
pub(crate) fn correlated<'a>(
    old: Option<&'a Value>,
    node: &Node,
) -> Option<std::collections::HashMap<String, &'a Value>> {
    let old = old.and_then(Value::as_array).filter(|_| node.is_keyed_list())?;
    Some(old.iter().map(|item| (key_of(item, node), item)).collect())
}

/// The keys of an item as one text.
pub(crate) fn key_of(item: &Value, node: &Node) -> String {
    let keys: Vec<String> =
        node.list_keys.iter().map(|key| item.get(key).unwrap_or(&Value::Null).to_string()).collect();
    keys.join("\u{0}")
}

fn check_text(text: &str, bounds: &Bounds, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let value = || Value::from(text);
    if bounds.lengths.min.is_some() || bounds.lengths.max.is_some() {
        let length = text.chars().count() as u64;
        if let Some(max) = bounds.lengths.max.filter(|max| length > *max) {
            errors.push(FieldError::too_long(&place.path(), usize::try_from(max).unwrap_or(usize::MAX)));
        }
        if let Some(min) = bounds.lengths.min.filter(|min| length < *min) {
            invalid(&value(), place, &format!("should be at least {min} chars long"), errors);
        }
    }
    if let Some(pattern) = bounds.pattern.as_ref().filter(|pattern| !pattern.is_met(text)) {
        invalid(&value(), place, &format!("should match '{}'", pattern.source()), errors);
    }
    if !formats::fits(&bounds.format, text) {
        let why = format!("must be of type {}: {}", bounds.format, value());
        invalid(&value(), place, &why, errors);
    }
}

fn check_number(value: &Value, bounds: &Bounds, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let Some(number) = value.as_f64() else { return };
    if let Some(max) = bounds.maximum.filter(|max| number > *max || (bounds.exclusive_maximum && number >= *max)) {
        let than = if bounds.exclusive_maximum { "less than" } else { "less than or equal to" };
        invalid(value, place, &format!("should be {than} {max}"), errors);
    }
    if let Some(min) = bounds.minimum.filter(|min| number < *min || (bounds.exclusive_minimum && number <= *min)) {
        let than = if bounds.exclusive_minimum { "greater than" } else { "greater than or equal to" };
        invalid(value, place, &format!("should be {than} {min}"), errors);
    }
    if let Some(of) = bounds.multiple_of.filter(|of| (number / of).fract() != 0.0) {
        invalid(value, place, &format!("should be a multiple of {of}"), errors);
    }
    let in_range = match bounds.format.as_str() {
        "int32" => number.fract() != 0.0 || (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number),
        "float" => number.abs() <= f64::from(f32::MAX),
        _ => true,
    };
    if !in_range {
        let why = format!("Checked value must be of type integer with format {} in range", bounds.format);
        errors.push(FieldError::invalid(&place.path(), value, &why));
    }
}

fn check_options(value: &Value, bounds: &Bounds, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let same = |option: &Value| option == value || (option.is_number() && option.as_f64() == value.as_f64());
    if bounds.options.is_empty() || bounds.options.iter().any(same) {
        return;
    }
    let options: Vec<String> = bounds.options.iter().map(printed).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    errors.push(FieldError::not_supported_in_order(&place.path(), value, &options));
}

fn printed(option: &Value) -> String {
    option.as_str().map_or_else(|| option.to_string(), str::to_owned)
}

fn check_alternatives(value: &Value, node: &Node, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let wrong = |node: &Node| {
        let mut errors = Vec::new();
        check(value, None, node, place, &mut errors);
        errors
    };
    let quoted = || format!("{:?}", place.path().to_string());
    let fail = |why: String, errors: &mut Vec<FieldError>| {
        errors.push(FieldError::invalid(&FieldPath::new("<nil>"), &Value::from(""), &why));
    };
    for part in &node.all_of {
        errors.extend(wrong(part));
    }
    let all: Vec<Vec<FieldError>> = node.any_of.iter().map(wrong).collect();
    if !all.is_empty() && all.iter().all(|errors| !errors.is_empty()) {
        fail(format!("{} must validate at least one schema (anyOf)", quoted()), errors);
        errors.extend(closest(all));
    }
    let all: Vec<Vec<FieldError>> = node.one_of.iter().map(wrong).collect();
    let valid = all.iter().filter(|errors| errors.is_empty()).count();
    if !all.is_empty() && valid != 1 {
        let found =
            if valid == 0 { "Found none valid".to_owned() } else { format!("Found {valid} valid alternatives") };
        fail(format!("{} must validate one and only one schema (oneOf). {found}", quoted()), errors);
        if valid == 0 {
            errors.extend(closest(all));
        }
    }
    if node.not.as_deref().is_some_and(|not| wrong(not).is_empty()) {
        fail(format!("{} must not validate the schema (not)", quoted()), errors);
    }
}

/// What is wrong with the alternative with which the least is wrong.
fn closest(all: Vec<Vec<FieldError>>) -> Vec<FieldError> {
    all.into_iter().min_by_key(Vec::len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn table(schema: Value, value: Value, old: Option<Value>, expected: &[&str]) {
        let (mut errors, node) = (Vec::new(), Node::read(&schema));
        check(&value, old.as_ref(), &node, &Place::ROOT.child("spec"), &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn values_are_held_to_types_and_bounds() {
        let check = |schema, value, expected: &[&str]| table(schema, value, None, expected);
        check(
            json!({"type": "integer"}),
            json!("x"),
            &["spec: Invalid value: \"string\": spec in body must be of type integer: \"string\""],
        );
        check(json!({"type": "integer"}), json!(2.0), &[]);
        check(json!({"type": "number"}), json!(2), &[]);
        check(json!({"type": "string", "nullable": true}), json!(null), &[]);
        check(json!({"x-kubernetes-int-or-string": true}), json!("50%"), &[]);
        check(
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            &["spec: Invalid value: \"boolean\": spec in body must be of type integer,string: \"boolean\""],
        );
        check(
            json!({"type": "integer", "minimum": 1, "maximum": 3, "exclusiveMaximum": true}),
            json!(3),
            &["spec: Invalid value: 3: spec in body should be less than 3"],
        );
        check(
            json!({"type": "integer", "minimum": 1, "multipleOf": 2}),
            json!(-1),
            &[
                "spec: Invalid value: -1: spec in body should be greater than or equal to 1",
                "spec: Invalid value: -1: spec in body should be a multiple of 2",
            ],
        );
        check(
            json!({"type": "string", "minLength": 3, "pattern": "^a"}),
            json!("b"),
            &[
                "spec: Invalid value: \"b\": spec in body should be at least 3 chars long",
                "spec: Invalid value: \"b\": spec in body should match '^a'",
            ],
        );
        check(
            json!({"type": "string", "maxLength": 1}),
            json!("éé"),
            &["spec: Too long: may not be more than 1 bytes"],
        );
        check(
            json!({"type": "string", "enum": ["b", "a"]}),
            json!("c"),
            &["spec: Unsupported value: \"c\": supported values: \"b\", \"a\""],
        );
        check(
            json!({"type": "string", "format": "ipv4"}),
            json!("x"),
            &["spec: Invalid value: \"x\": spec in body must be of type ipv4: \"x\""],
        );
    }

    #[test]
    fn containers_are_held_to_their_schemas() {
        table(
            json!({"type": "object", "required": ["a"], "properties": {"l": {"type": "array", "maxItems": 1,
                "items": {"type": "object", "properties": {"n": {"type": "integer"}}}}}}),
            json!({"l": [{"n": "x"}, {}]}),
            None,
            &[
                "spec.a: Required value",
                "spec.l: Too many: 2: must have at most 1 items",
                "spec.l[0].n: Invalid value: \"string\": spec.l[0].n in body must be of type integer: \"string\"",
            ],
        );
        let alternatives = json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
            "not": {"required": ["c"]}});
        table(alternatives.clone(), json!({"a": 1}), None, &[]);
        table(
            alternatives,
            json!({"a": 1, "b": 1, "c": 1}),
            None,
            &[
                "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
                "<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)",
            ],
        );
    }

    #[test]
    fn what_has_not_changed_is_not_held_to_anything() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"},
            "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"v": {"type": "integer"}}}}}});
        table(
            schema,
            json!({"a": "old", "b": "new", "keyed": [{"k": "2", "v": "y"}, {"k": "1", "v": "x"}]}),
            Some(json!({"a": "old", "b": "was", "keyed": [{"k": "1", "v": "x"}]})),
            &[
                "spec.b: Invalid value: \"string\": spec.b in body must be of type integer: \"string\"",
                "spec.keyed[0].v: Invalid value: \"string\": spec.keyed[0].v in body must be of type integer: \"string\"",
            ],
        );
    }
}
