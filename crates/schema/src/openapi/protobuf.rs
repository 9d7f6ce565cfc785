//! The protobuf form of OpenAPI v2, with the field numbers of `gnostic.openapi.v2`.
//!
//! Writes from the JSON form, and only what the documents here contain. Extensions and defaults are YAML text in that
//! format; JSON is YAML.

use serde_json::Value;

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or_default());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, message: Message) {
        self.bytes(field, &message.0);
    }

    fn flag(&mut self, field: u64, value: bool) {
        if value {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    fn integer(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    /// A double.
    fn number(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn text(&mut self, field: u64, object: &Value, key: &str) {
        if let Some(text) = object.get(key).and_then(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, object: &Value, key: &str) {
        for text in object.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    /// `NamedX { name, value }`
    fn named(&mut self, field: u64, name: &str, value: Message) {
        let mut entry = Message::default();
        entry.bytes(1, name.as_bytes());
        entry.message(2, value);
        self.message(field, entry);
    }

    /// The `x-` entries as `NamedAny`.
    fn extensions(&mut self, field: u64, object: &Value) {
        for (name, value) in object.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
            self.named(field, name, any(value));
        }
    }
}

/// `Any { yaml }`
fn any(value: &Value) -> Message {
    let mut any = Message::default();
    any.bytes(2, value.to_string().as_bytes());
    any
}

/// `Document`, written in the order of its field numbers.
#[derive(Debug)]
pub(super) struct Document(Message);

/// `Definitions`
#[derive(Debug, Default)]
pub(super) struct Definitions(Message);

impl Definitions {
    /// Adds a schema.
    pub(super) fn add(&mut self, name: &str, value: &Value) {
        self.0.named(1, name, schema(value));
    }
}

impl Document {
    pub(super) fn new(info: &Value) -> Self {
        let mut document = Message::default();
        document.bytes(1, b"2.0");
        let mut message = Message::default();
        message.text(1, info, "title");
        message.text(2, info, "version");
        document.message(2, message);
        Self(document)
    }

    pub(super) fn paths<'p>(&mut self, items: impl Iterator<Item = (&'p str, Value)>) {
        let mut paths = Message::default();
        for (name, item) in items {
            paths.named(2, name, path_item(&item));
        }
        self.0.message(8, paths);
    }

    pub(super) fn finish(mut self, definitions: Definitions, security: &Value) -> Vec<u8> {
        self.0.message(9, definitions.0);
        let mut requirement = Message::default();
        let mut definitions = Message::default();
        for (name, scheme) in security.as_object().into_iter().flatten() {
            requirement.named(1, name, Message::default());
            let mut key = Message::default();
            key.text(1, scheme, "type");
            key.text(2, scheme, "name");
            key.text(3, scheme, "in");
            key.text(4, scheme, "description");
            let mut item = Message::default();
            item.message(2, key);
            definitions.named(1, name, item);
        }
        self.0.message(12, requirement);
        self.0.message(13, definitions);
        self.0.0
    }
}

fn path_item(item: &Value) -> Message {
    let mut message = Message::default();
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(value) = item.get(method) {
            message.message(field, operation(value));
        }
    }
    parameters(&mut message, 9, item);
    message
}

fn operation(value: &Value) -> Message {
    let mut message = Message::default();
    message.texts(1, value, "tags");
    message.text(5, value, "operationId");
    message.texts(6, value, "produces");
    message.texts(7, value, "consumes");
    parameters(&mut message, 8, value);
    let mut responses = Message::default();
    for (code, value) in value["responses"].as_object().into_iter().flatten() {
        responses.named(1, code, response(value));
    }
    message.message(9, responses);
    message.texts(10, value, "schemes");
    message.extensions(13, value);
    message
}

/// `ResponseValue { Response }`
fn response(value: &Value) -> Message {
    let mut response = Message::default();
    response.text(1, value, "description");
    if let Some(value) = value.get("schema") {
        let mut item = Message::default();
        item.message(1, schema(value));
        response.message(2, item);
    }
    let mut wrapped = Message::default();
    wrapped.message(1, response);
    wrapped
}

/// `ParametersItem { Parameter { BodyParameter or NonBodyParameter } }`
fn parameters(message: &mut Message, field: u64, owner: &Value) {
    for value in owner.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        let mut parameter = Message::default();
        match value["in"].as_str() {
            Some("body") => parameter.message(1, body_parameter(value)),
            place => {
                let mut any_place = Message::default();
                let in_query = place == Some("query");
                any_place.message(if in_query { 3 } else { 4 }, simple_parameter(value, in_query));
                parameter.message(2, any_place);
            }
        }
        let mut item = Message::default();
        item.message(1, parameter);
        message.message(field, item);
    }
}

fn body_parameter(value: &Value) -> Message {
    let mut message = Message::default();
    message.text(2, value, "name");
    message.text(3, value, "in");
    message.flag(4, value["required"] == true);
    message.message(5, schema(&value["schema"]));
    message
}

/// `QueryParameterSubSchema` has one field more than `PathParameterSubSchema`, which shifts the numbers behind it.
fn simple_parameter(value: &Value, in_query: bool) -> Message {
    let mut message = Message::default();
    let shift = u64::from(in_query);
    message.flag(1, value["required"] == true);
    message.text(2, value, "in");
    message.text(4, value, "name");
    message.text(5 + shift, value, "type");
    message.flag(19 + shift, value["uniqueItems"] == true);
    message
}

fn schema(value: &Value) -> Message {
    let mut message = Message::default();
    message.text(1, value, "$ref");
    message.text(2, value, "format");
    message.text(4, value, "description");
    bounds(&mut message, value);
    message.texts(19, value, "required");
    for option in value.get("enum").and_then(Value::as_array).into_iter().flatten() {
        message.message(20, any(option));
    }
    if let Some(values) = value.get("additionalProperties") {
        let mut item = Message::default();
        item.message(1, schema(values));
        message.message(21, item);
    }
    if value.get("type").is_some() {
        let mut ty = Message::default();
        ty.text(1, value, "type");
        message.message(22, ty);
    }
    if let Some(items) = value.get("items") {
        let mut item = Message::default();
        item.message(1, schema(items));
        message.message(23, item);
    }
    if let Some(fields) = value.get("properties").and_then(Value::as_object) {
        let mut properties = Message::default();
        for (name, field) in fields {
            properties.named(1, name, schema(field));
        }
        message.message(25, properties);
    }
    message.extensions(31, value);
    message
}

/// What the schemas of custom resources hold values to.
fn bounds(message: &mut Message, value: &Value) {
    let number = |name: &str| value.get(name).and_then(Value::as_f64);
    let count = |name: &str| value.get(name).and_then(Value::as_u64);
    for (field, name, exclusive) in [(7, "maximum", "exclusiveMaximum"), (9, "minimum", "exclusiveMinimum")] {
        if let Some(bound) = number(name) {
            message.number(field, bound);
        }
        message.flag(field + 1, value.get(exclusive) == Some(&Value::Bool(true)));
    }
    for (field, name) in [(11, "maxLength"), (12, "minLength")] {
        if let Some(bound) = count(name) {
            message.integer(field, bound);
        }
    }
    message.text(13, value, "pattern");
    for (field, name) in [(14, "maxItems"), (15, "minItems"), (17, "maxProperties"), (18, "minProperties")] {
        if let Some(bound) = count(name) {
            message.integer(field, bound);
        }
    }
}
