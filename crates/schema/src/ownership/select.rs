//! From an object to the set of its fields, and from a set to the object without those fields.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::field_set::{FieldSet, Node};
use super::list_items::element_of;
use super::path_element::PathElement;
use crate::facts::ListType;
use crate::schema::{Schema, Shape};

/// Every field and item that the object mentions.
pub(super) fn fields_of<'a>(value: &'a Value, schema: Schema<'_>) -> FieldSet<'a> {
    node_of(value, schema).children
}

fn node_of<'a>(value: &'a Value, schema: Schema<'_>) -> Node<'a> {
    match (schema.shape(), value) {
        (_, Value::Object(_)) | (Shape::Struct(_) | Shape::Map(_), Value::Null) if schema.is_atomic() => Node::member(),
        (Shape::Struct(_) | Shape::Map(_) | Shape::Untyped | Shape::Json, Value::Object(entries)) => {
            entries_of(entries, schema)
        }
        (Shape::List(items), Value::Array(list)) if schema.list_type() != ListType::Atomic => {
            items_of(list, schema, items)
        }
        (Shape::List(_), Value::Null) if schema.list_type() != ListType::Atomic => Node::default(),
        (Shape::Struct(_) | Shape::Map(_), Value::Null) => Node::default(),
        _ => Node::member(),
    }
}

fn entries_of<'a>(entries: &'a Map<String, Value>, schema: Schema<'_>) -> Node<'a> {
    let mut node = Node::default();
    for (name, value) in entries {
        let (named, field) = entry_schema(schema, name);
        let mut below = node_of(value, field);
        let hollow = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        below.member |= hollow || !named;
        node.children.push(PathElement::Field(name.as_str().into()), below);
    }
    node
}

/// The schema of an entry, and whether it is a named field rather than an entry of a map.
fn entry_schema<'a>(schema: Schema<'a>, name: &str) -> (bool, Schema<'a>) {
    match schema.shape() {
        Shape::Struct(fields) => match fields.field(name) {
            Some((_, field)) => (true, field),
            None => (false, Schema::untyped()),
        },
        Shape::Map(values) => (false, values),
        _ => (false, Schema::untyped()),
    }
}

fn items_of<'a>(list: &'a [Value], schema: Schema<'_>, items: Schema<'_>) -> Node<'a> {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    let elements = || list.iter().filter_map(|item| Some((element_of(schema, items, item).ok()?, item)));
    for (element, _) in elements() {
        if !seen.insert(element.clone()) {
            twice.insert(element);
        }
    }
    let mut node = Node::default();
    for (element, item) in elements() {
        let below = match twice.contains(&element) {
            true => Node::member(),
            false => Node { member: true, ..node_of(item, items) },
        };
        node.children.push(element, below);
    }
    node
}

/// The object without the given fields. Containers that become empty go as well.
pub(super) fn without_fields(value: &Value, unwanted: &FieldSet<'_>, schema: Schema<'_>) -> Value {
    remove(value, unwanted, schema).unwrap_or_else(|| Value::Object(Map::new()))
}

fn remove(value: &Value, unwanted: &FieldSet<'_>, schema: Schema<'_>) -> Option<Value> {
    match (schema.shape(), value) {
        (Shape::Struct(_) | Shape::Map(_) | Shape::Untyped | Shape::Json, Value::Object(entries)) => {
            if schema.is_atomic() || entries.is_empty() {
                return None;
            }
            let mut kept = Map::new();
            for (name, value) in entries {
                let field = entry_schema(schema, name).1;
                if let Some(value) = keep(value, unwanted.get(&PathElement::Field(name.as_str().into())), field) {
                    kept.insert(name.clone(), value);
                }
            }
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        (Shape::List(items), Value::Array(list)) => {
            if schema.list_type() == ListType::Atomic {
                return None;
            }
            let keep = |item: &Value| {
                let element = element_of(schema, items, item).ok();
                keep(item, element.and_then(|element| unwanted.get(&element)), items)
            };
            let kept: Vec<Value> = list.iter().filter_map(keep).collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        (_, Value::Array(_)) => None,
        _ => Some(value.clone()),
    }
}

fn keep(value: &Value, unwanted: Option<&Node<'_>>, schema: Schema<'_>) -> Option<Value> {
    match unwanted {
        None => Some(value.clone()),
        Some(node) if node.member => None,
        Some(node) => remove(value, &node.children, schema),
    }
}
