//! A structural schema in memory: read once for each version of a definition, used for every object.
//!
//! It reads anything; whether a schema is a good one is [`crate::structural`]'s matter. Invariant: patterns and
//! rules are compiled once, when they are first needed.

use std::collections::BTreeMap;

use kedge_expressions::Pattern;
use serde_json::Value;

use crate::json::{at, items, text, texts, truth};
use crate::place::Place;
use crate::rules::Rules;

/// How deep a schema may be; upstream's bound is that of its decoder.
pub(crate) const MAX_DEPTH: usize = 100;

/// The schema of one position.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    /// `object`, `array`, ...; empty where the schema does not say.
    pub(crate) kind: String,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) preserves: bool,
    pub(crate) embedded: bool,
    pub(crate) atomic_map: bool,
    pub(crate) list_type: String,
    pub(crate) list_keys: Vec<String>,
    pub(crate) default: Option<Value>,
    pub(crate) properties: BTreeMap<String, Node>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Node>>,
    pub(crate) bounds: Bounds,
    pub(crate) all_of: Vec<Node>,
    pub(crate) any_of: Vec<Node>,
    pub(crate) one_of: Vec<Node>,
    pub(crate) not: Option<Box<Node>>,
    pub(crate) rules: Rules,
    /// Whether there are rules here or below.
    pub(crate) holds_rules: bool,
    /// Whether it is a whole object, whose `apiVersion`, `kind` and names rules see.
    pub(crate) is_object_root: bool,
}

/// `additionalProperties`.
#[derive(Debug, Clone, Default)]
pub(crate) enum Additional {
    /// Not said.
    #[default]
    Absent,
    /// `true` or `false`.
    Any(bool),
    /// Of this schema.
    Schema(Box<Node>),
}

/// What single values are held to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bounds {
    pub(crate) format: String,
    pub(crate) options: Vec<Value>,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) minimum: Option<f64>,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) lengths: Range,
    pub(crate) items: Range,
    pub(crate) properties: Range,
    pub(crate) required: Vec<String>,
}

/// How many there may be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Range {
    pub(crate) min: Option<u64>,
    pub(crate) max: Option<u64>,
}

impl Node {
    /// Reads an `openAPIV3Schema`.
    pub(crate) fn read(schema: &Value) -> Self {
        Self { is_object_root: true, ..Self::read_at(schema, 0) }
    }

    fn read_at(schema: &Value, depth: usize) -> Self {
        if depth > MAX_DEPTH {
            return Self { preserves: true, ..Self::default() };
        }
        let below = |schema: &Value| Self::read_at(schema, depth + 1);
        let all = |name: &str| items(schema, &[name]).iter().map(below).collect::<Vec<_>>();
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let mut node = Self {
            kind: text(schema, &["type"]).to_owned(),
            nullable: truth(schema, &["nullable"]),
            int_or_string: truth(schema, &["x-kubernetes-int-or-string"]),
            preserves: truth(schema, &["x-kubernetes-preserve-unknown-fields"]),
            embedded: truth(schema, &["x-kubernetes-embedded-resource"]),
            atomic_map: text(schema, &["x-kubernetes-map-type"]) == "atomic",
            list_type: text(schema, &["x-kubernetes-list-type"]).to_owned(),
            list_keys: texts(schema, &["x-kubernetes-list-map-keys"]).map(str::to_owned).collect(),
            default: at(schema, &["default"]).cloned(),
            properties: properties.map(|(name, property)| (name.clone(), below(property))).collect(),
            additional: match schema.get("additionalProperties") {
                Some(Value::Bool(any)) => Additional::Any(*any),
                Some(schema @ Value::Object(_)) => Additional::Schema(Box::new(below(schema))),
                _ => Additional::Absent,
            },
            items: at(schema, &["items"]).filter(|items| items.is_object()).map(|items| Box::new(below(items))),
            bounds: Bounds::read(schema),
            all_of: all("allOf"),
            any_of: all("anyOf"),
            one_of: all("oneOf"),
            not: at(schema, &["not"]).map(|schema| Box::new(below(schema))),
            rules: Rules::read(schema),
            holds_rules: false,
            is_object_root: truth(schema, &["x-kubernetes-embedded-resource"]),
        };
        node.holds_rules = !node.rules.is_empty() || node.children().any(|child| child.holds_rules);
        node
    }

    /// The schema of a field, entry or item by name.
    pub(crate) fn member(&self, name: &str) -> Option<&Self> {
        match (self.properties.get(name), &self.additional) {
            (Some(property), _) => Some(property),
            (None, Additional::Schema(values)) => Some(values),
            _ => None,
        }
    }

    /// Visits what lies directly below a value of this schema and has one of its own.
    pub(crate) fn for_each_below(
        &self,
        value: &Value,
        place: &Place<'_>,
        visit: &mut dyn FnMut(&Value, &Self, &Place<'_>),
    ) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match (self.properties.get(name), &self.additional) {
                        (Some(property), _) => visit(value, property, &place.child(name)),
                        (None, Additional::Schema(values)) => visit(value, values, &place.key(name)),
                        _ => {}
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                for (index, item) in list.iter().enumerate() {
                    visit(item, items, &place.index(index));
                }
            }
            _ => {}
        }
    }

    /// Whether the list here is owned and compared item by item.
    pub(crate) fn is_keyed_list(&self) -> bool {
        self.list_type == "map" && !self.list_keys.is_empty()
    }

    /// Whether something below has a default.
    pub(crate) fn has_defaults(&self) -> bool {
        self.default.is_some() || self.children().any(Node::has_defaults)
    }

    /// The structural children.
    fn children(&self) -> impl Iterator<Item = &Node> {
        let additional = match &self.additional {
            Additional::Schema(node) => Some(&**node),
            _ => None,
        };
        self.properties.values().chain(self.items.as_deref()).chain(additional)
    }
}

impl Bounds {
    fn read(schema: &Value) -> Self {
        let number = |name: &str| schema.get(name).and_then(Value::as_f64);
        let count = |name: &str| schema.get(name).and_then(Value::as_u64);
        let range = |min: &str, max: &str| Range { min: count(min), max: count(max) };
        let pattern = Some(text(schema, &["pattern"])).filter(|text| !text.is_empty());
        Self {
            format: text(schema, &["format"]).replace('-', ""),
            options: items(schema, &["enum"]).to_vec(),
            pattern: pattern.map(Pattern::new),
            minimum: number("minimum"),
            maximum: number("maximum"),
            exclusive_minimum: truth(schema, &["exclusiveMinimum"]),
            exclusive_maximum: truth(schema, &["exclusiveMaximum"]),
            multiple_of: number("multipleOf").filter(|of| *of > 0.0),
            lengths: range("minLength", "maxLength"),
            items: range("minItems", "maxItems"),
            properties: range("minProperties", "maxProperties"),
            required: texts(schema, &["required"]).map(str::to_owned).collect(),
        }
    }
}
