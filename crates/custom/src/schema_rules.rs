//! What a schema of a definition may say besides being structural: extensions that fit together, defaults that are valid.
//!
//! The rules and texts are upstream's.

use kedge_expressions::MOST_ELEMENTS;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::json::{at, items, text, texts, truth};
use crate::node::Node;
use crate::place::Place;
use crate::validations::{self, Position};
use crate::{check, defaults, list_types, prune};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// What holds for a whole part of a schema.
#[derive(Debug, Clone, Copy, Default)]
struct Within<'a> {
    /// Why there may be no defaults.
    no_defaults: Option<&'a str>,
    /// Within the metadata of an object, or its `apiVersion` and `kind`.
    metadata: bool,
    /// How many values beside one an object may have there.
    others: u64,
    /// From which position on old and new values can't be matched.
    unmatched: Option<&'a str>,
}

impl<'a> Within<'a> {
    /// Within the items or entries of `schema`.
    fn times(self, schema: &Value, bound: &str) -> Self {
        let most = schema.get(bound).and_then(Value::as_u64).unwrap_or(MOST_ELEMENTS);
        Self { others: self.others.saturating_add(1).saturating_mul(most).saturating_sub(1), ..self }
    }

    fn unmatched_from(self, place: &'a str) -> Self {
        Self { unmatched: self.unmatched.or(Some(place)), ..self }
    }
}

/// What is wrong with a structural schema.
pub(crate) fn check_schema(schema: &Value, place: &Place<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    visit(schema, true, Within::default(), place, &mut errors);
    if errors.is_empty() {
        check_defaults(schema, place, &mut errors);
    }
    errors
}

fn visit(schema: &Value, is_root: bool, within: Within<'_>, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    standard(schema, within, place, errors);
    let properties = schema.get("properties").and_then(Value::as_object);
    if let Some(additional) = at(schema, &["additionalProperties"]) {
        let place = place.child("additionalProperties");
        if properties.is_some_and(|all| !all.is_empty()) && *additional != json!(true) {
            let why = "additionalProperties and properties are mutual exclusive";
            errors.push(FieldError::forbidden(&place.path(), why));
        }
        let why = "inside additionalProperties applying to object metadata";
        let within = if within.metadata { Within { no_defaults: Some(why), ..within } } else { within };
        if additional.is_object() {
            visit(additional, false, within.times(schema, "maxProperties"), &place, errors);
        }
    }
    let is_object = is_root || truth(schema, &["x-kubernetes-embedded-resource"]);
    let is_atomic = text(schema, &["x-kubernetes-map-type"]) == "atomic";
    let own = place.path().to_string();
    for (name, property) in properties.into_iter().flatten() {
        let meta = is_object && matches!(name.as_str(), "metadata" | "kind" | "apiVersion");
        let why = format!("in top-level {name}");
        let no_defaults = if meta && is_root { Some(why.as_str()) } else { within.no_defaults };
        let within = Within { no_defaults, metadata: within.metadata || meta, ..within };
        let within = if is_atomic { within.unmatched_from(&own) } else { within };
        visit(property, false, within, &place.child("properties").key(name), errors);
    }
    for field in ["allOf", "oneOf", "anyOf"] {
        for (index, nested) in items(schema, &[field]).iter().enumerate() {
            visit(nested, false, within, &place.child(field).index(index), errors);
        }
    }
    if let Some(not) = at(schema, &["not"]) {
        visit(not, false, within, &place.child("not"), errors);
    }
    if let Some(items) = at(schema, &["items"]).filter(|items| items.is_object()) {
        let is_map = text(schema, &["x-kubernetes-list-type"]) == "map";
        let within = if is_map { within } else { within.unmatched_from(&own) };
        visit(items, false, within.times(schema, "maxItems"), &place.child("items"), errors);
    }
    map_types(schema, place, errors);
    list_type(schema, place, errors);
    let position = Position { cardinality: within.others.saturating_add(1), unmatched: within.unmatched, is_object };
    validations::check(schema, position, place, errors);
}

fn standard(schema: &Value, within: Within<'_>, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let kind = text(schema, &["type"]);
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&place.child("type").path(), &json!(kind), &TYPES));
    }
    if let Some(why) = within.no_defaults.filter(|_| at(schema, &["default"]).is_some()) {
        errors.push(FieldError::forbidden(&place.child("default").path(), &format!("must not be set {why}")));
    }
    for field in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if at(schema, &[field]).is_some_and(|value| *value != json!("") && *value != json!({})) {
            errors.push(FieldError::forbidden(&place.child(field).path(), &format!("{field} is not supported")));
        }
    }
    if kind == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        errors.push(FieldError::forbidden(&place.child("type").path(), why));
    }
    if schema.get("items").is_some_and(Value::is_array) {
        let why = "items must be a schema object and not an array";
        errors.push(FieldError::forbidden(&place.child("items").path(), why));
    }
    if within.metadata && truth(schema, &["x-kubernetes-embedded-resource"]) {
        let path = place.child("x-kubernetes-embedded-resource").path();
        errors.push(FieldError::forbidden(&path, "must not be used inside of resource meta"));
    }
    if truth(schema, &["uniqueItems"]) {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(&place.child("uniqueItems").path(), why));
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(false)) {
        let path = place.child("x-kubernetes-preserve-unknown-fields").path();
        errors.push(FieldError::invalid(&path, &json!(false), "must be true or undefined"));
    }
}

/// `type` must be `wanted` where `field` is set.
fn needs_type(schema: &Value, wanted: &str, field: &str, place: &Place<'_>, errors: &mut Vec<FieldError>) -> bool {
    let (kind, path) = (text(schema, &["type"]), place.child("type").path());
    let why = format!("must be {wanted} if {field} is specified");
    match kind {
        kind if kind == wanted => return true,
        "" => errors.push(FieldError::required(&path, &why)),
        _ => errors.push(FieldError::invalid(&path, &json!(kind), &why)),
    }
    false
}

fn map_types(schema: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "x-kubernetes-map-type";
    let Some(map_type) = at(schema, &[FIELD]).and_then(Value::as_str) else { return };
    needs_type(schema, "object", FIELD, place, errors);
    if !matches!(map_type, "atomic" | "granular") {
        let path = place.child(FIELD).path();
        errors.push(FieldError::not_supported(&path, &json!(map_type), &["atomic", "granular"]));
    }
}

fn list_type(schema: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "x-kubernetes-list-type";
    const KEYS: &str = "x-kubernetes-list-map-keys";
    let list_type = at(schema, &[FIELD]).and_then(Value::as_str);
    let own = place.child(FIELD).path();
    let keys: Vec<&str> = texts(schema, &[KEYS]).collect();
    if !keys.is_empty() && list_type != Some("map") {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(match list_type {
            None => FieldError::required(&own, why),
            Some(other) => FieldError::invalid(&own, &json!(other), why),
        });
    }
    let Some(list_type) = list_type else { return };
    let is_list = needs_type(schema, "array", FIELD, place, errors);
    if !matches!(list_type, "atomic" | "set" | "map") {
        errors.push(FieldError::not_supported(&own, &json!(list_type), &["atomic", "set", "map"]));
    }
    let items = at(schema, &["items"]);
    match (list_type, items) {
        ("set", Some(items)) if is_list => set_items(items, place, errors),
        ("map", items) => map_items(&keys, items, place, errors),
        _ => {}
    }
    if matches!(list_type, "set" | "map") && items.is_some_and(|items| truth(items, &["nullable"])) {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(FieldError::forbidden(&place.child("items").child("nullable").path(), &why));
    }
}

fn set_items(items: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let (field, wrong) = match text(items, &["type"]) {
        "array" => {
            let field = "x-kubernetes-list-type";
            (field, !matches!(text(items, &[field]), "" | "atomic"))
        }
        "object" => {
            let field = "x-kubernetes-map-type";
            (field, text(items, &[field]) != "atomic")
        }
        _ => return,
    };
    if wrong {
        let value = items.get(field).unwrap_or(&Value::Null);
        errors.push(FieldError::invalid(&place.child("items").child(field).path(), value, why));
    }
}

fn map_items(keys: &[&str], items: Option<&Value>, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let own = place.child("x-kubernetes-list-map-keys").path();
    if keys.is_empty() {
        errors.push(FieldError::required(&own, "must not be empty if x-kubernetes-list-type is map"));
    }
    let below = place.child("items");
    let Some(items) = items else {
        let why = "must have a schema if x-kubernetes-list-type is map";
        errors.push(FieldError::required(&below.path(), why));
        return;
    };
    let kind = text(items, &["type"]);
    if kind != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(&below.child("type").path(), &json!(kind), why));
        return;
    }
    for (index, key) in keys.iter().enumerate() {
        if keys[..index].contains(key) {
            errors.push(FieldError::invalid(&own, &json!(keys), "must not contain duplicate entries"));
        }
        let Some(property) = items.get("properties").and_then(|all| all.get(key)) else {
            errors.push(FieldError::invalid(&own, &json!(keys), "entries must all be names of item properties"));
            continue;
        };
        let place = below.child("properties");
        key_property(items, property, key, &place.key(key), errors);
    }
}

fn key_property(items: &Value, property: &Value, key: &str, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    if matches!(text(property, &["type"]), "array" | "object") {
        let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(&place.child("type").path(), &json!(text(items, &["type"])), why));
    }
    if !texts(items, &["required"]).any(|name| name == key) && at(property, &["default"]).is_none() {
        let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
        errors.push(FieldError::required(&place.child("default").path(), why));
    }
    if truth(property, &["nullable"]) {
        let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
        errors.push(FieldError::forbidden(&place.child("nullable").path(), why));
    }
}

/// Defaults are complete, name nothing unknown and are valid themselves.
fn check_defaults(schema: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    if let Some(default) = at(schema, &["default"]) {
        let node = Node::read(schema);
        let own = place.child("default");
        let mut pruned = json!({"value": default});
        let holder = json!({"type": "object", "properties": {"value": schema}});
        if !prune::prune(&mut pruned, &Node::read(&holder)).is_empty() {
            errors.push(FieldError::invalid(&own.path(), default, "must not have unknown fields"));
        }
        let mut filled = default.clone();
        defaults::fill(&mut filled, &node);
        check::check(&filled, None, &node, &own, errors);
        list_types::check(&filled, &node, &own, errors);
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        check_defaults(property, &place.child("properties").key(name), errors);
    }
    for field in ["items", "additionalProperties"] {
        if let Some(below) = at(schema, &[field]).filter(|below| below.is_object()) {
            check_defaults(below, &place.child(field), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn table(schema: Value, expected: &[&str]) {
        let schema = json!({"type": "object", "properties": {"a": schema}});
        let errors = check_schema(&schema, &Place::ROOT.child("s"));
        let texts: Vec<String> =
            errors.iter().map(|error| error.to_string().replacen("s.properties[a].", "", 1)).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn extensions_fit_together() {
        table(
            json!({"type": "strin"}),
            &["type: Unsupported value: \"strin\": supported values: \"array\", \"boolean\", \
            \"integer\", \"number\", \"object\", \"string\""],
        );
        table(
            json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}}),
            &[
                "uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ],
        );
        table(
            json!({"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            &["additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
        );
        table(
            json!({"type": "object", "x-kubernetes-list-type": "set"}),
            &["type: Invalid value: \"object\": must be array if x-kubernetes-list-type is specified"],
        );
        table(
            json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object",
            "properties": {"k": {"type": "string"}}}, "x-kubernetes-list-map-keys": ["k"]}),
            &[
                "items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have \
               a default or be a required property",
            ],
        );
        table(
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["z"],
            "items": {"type": "object"}}),
            &["x-kubernetes-list-map-keys: Invalid value: [\"z\"]: entries must all be names of item properties"],
        );
    }

    #[test]
    fn rules_are_compiled_and_bounded() {
        let ruled = |rule: &str| json!({"type": "object", "properties": {"x": {"type": "integer"}}, "x-kubernetes-validations": [{"rule": rule}]});
        let check = |schema: Value, text: &str| {
            let schema = json!({"type": "object", "properties": {"a": schema}});
            let errors = check_schema(&schema, &Place::ROOT.child("s"));
            match text {
                "" => assert_eq!(errors, []),
                text => assert!(errors.iter().any(|error| error.to_string().contains(text)), "{errors:?}"),
            }
        };
        check(ruled("self.x > 1 && has(self.x)"), "");
        check(
            ruled("self.z == 100"),
            "compilation failed: ERROR: <input>:1:5: undefined field 'z'\n | self.z == 100\n | ....^",
        );
        check(
            ruled("self.x == 'a'"),
            "compilation failed: ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, string)'",
        );
        check(ruled("self.x"), "cel expression must evaluate to a bool");
        check(ruled("oldSelf.hasValue()"), "found no matching overload for 'hasValue' applied to 'self.()'");
        let messages = |message: &str| {
            let mut schema = ruled("self.x > 1");
            schema["x-kubernetes-validations"][0]["messageExpression"] = json!(message);
            schema
        };
        check(messages("'x is ' + string(self.x)"), "");
        check(
            messages("'x is ' + self.x"),
            "messageExpression compilation failed: ERROR: <input>:1:9: found no matching",
        );
        check(messages("self.x"), "messageExpression must evaluate to a string");
        let formats = |rule: &str| {
            json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}], "properties": {
            "at": {"type": "string", "format": "date-time"}, "long": {"type": "string", "format": "duration"},
            "port": {"x-kubernetes-int-or-string": true}, "free": {"x-kubernetes-preserve-unknown-fields": true},
            "o": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}})
        };
        check(formats("self.at + self.long > timestamp('2020-01-01T00:00:00Z')"), "");
        check(formats("self.at == '2020'"), "'_==_' applied to '(timestamp, string)'");
        check(formats("self.port == 1 || self.port == 'http'"), "");
        check(formats("has(self.free)"), "undefined field 'free'");
        check(formats("self.o.metadata.name == self.o.kind"), "");
        check(formats("self.o.spec == 1"), "undefined field 'spec'");
        check(ruled("nothing(self.x)"), "undeclared reference to 'nothing'");
        check(ruled("self = 42"), "Syntax error");
        check(ruled(" "), "rule is not specified");
        check(ruled("self.x > oldSelf.x"), "");
        let all = |inner: Value| {
            json!({"type": "array", "items": {"type": "array", "items": {"type": "string"},
            "x-kubernetes-validations": [inner]}})
        };
        check(all(json!({"rule": "self.all(s, s == 'x')"})), "exceeds budget by factor of more than 100x");
        let sixteen = |items: Value| json!({"type": "array", "maxItems": 16, "items": items});
        let chosen = json!({"type": "object", "x-kubernetes-validations": [{"rule": "!(has(self.o) && self.kind != 'a')"}],
            "properties": {"kind": {"type": "string", "enum": ["a", "b"]}, "o": {"type": "object"}}});
        check(sixteen(sixteen(sixteen(chosen))), "");
        check(
            all(json!({"rule": "self == oldSelf"})),
            "oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[a]",
        );
        check(
            json!({"type": "array", "maxItems": 725, "items": {"type": "integer"},
            "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x == y))"}]}),
            "",
        );
    }

    #[test]
    fn defaults_are_valid_themselves() {
        table(json!({"type": "integer", "default": 3}), &[]);
        table(
            json!({"type": "integer", "default": "x"}),
            &["default: Invalid value: \"string\": \
            s.properties[a].default in body must be of type integer: \"string\""],
        );
        table(
            json!({"type": "object", "default": {"b": 1}}),
            &["default: Invalid value: {\"b\":1}: must not have unknown fields"],
        );
        table(
            json!({"type": "object", "default": {}, "required": ["b"], "properties": {"b": {"type": "string"}}}),
            &["default.b: Required value"],
        );
    }
}
