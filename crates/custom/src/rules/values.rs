//! JSON as CEL values, typed by the schema.
//!
//! Of structures only what the schema names is seen, under names that CEL can read.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cel::common::types::{CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString};
use cel::common::value::Val;
use kedge_expressions::{DurationVal, TimestampVal, UnorderedList, escape};
use serde_json::Value;

use crate::node::{Additional, Node};

type Entries = HashMap<CelMapKey<'static>, Box<dyn Val>>;

/// A value at a position.
pub(super) fn value(value: &Value, node: &Node) -> Box<dyn Val> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(yes) => Box::new(CelBool::from(*yes)),
        Value::Number(number) => match number.as_i64().filter(|_| node.kind != "number") {
            Some(number) => Box::new(CelInt::from(number)),
            None => Box::new(CelDouble::from(number.as_f64().unwrap_or_default())),
        },
        Value::String(text) => formatted(text, node),
        Value::Array(list) => {
            let free = Node::default();
            let items = node.items.as_deref().unwrap_or(&free);
            let list: Vec<Box<dyn Val>> = list.iter().map(|item| self::value(item, items)).collect();
            match node.list_type.as_str() {
                "set" => Box::new(UnorderedList::new(list, &[])),
                "map" => Box::new(UnorderedList::new(list, &keys(node))),
                _ => Box::new(CelList::from(list)),
            }
        }
        Value::Object(fields) => Box::new(CelMap::from(entries(fields, node))),
    }
}

/// The fields that tell elements of a list apart, as rules write them.
fn keys(node: &Node) -> Vec<String> {
    node.list_keys.iter().map(|name| escape(name)).collect()
}

/// A text as what its format says; one that does not fit is refused elsewhere and stays a text here.
fn formatted(text: &str, node: &Node) -> Box<dyn Val> {
    let read: Option<Box<dyn Val>> = match node.bounds.format.as_str() {
        _ if node.kind != "string" || node.int_or_string => None,
        "datetime" => TimestampVal::parse(text).ok().map(|at| Box::new(at) as Box<dyn Val>),
        "date" => TimestampVal::parse_date(text).map(|at| Box::new(at) as Box<dyn Val>),
        "duration" => DurationVal::parse(text).ok().map(|long| Box::new(long) as Box<dyn Val>),
        "byte" => BASE64.decode(text).ok().map(|bytes| Box::new(CelBytes::from(bytes)) as Box<dyn Val>),
        _ => None,
    };
    read.unwrap_or_else(|| Box::new(CelString::from(text.to_owned())))
}

fn entries(fields: &serde_json::Map<String, Value>, node: &Node) -> Entries {
    let free = Node::default();
    let key = |name: String| CelMapKey::String(CelString::from(name));
    let mut seen = Entries::with_capacity(fields.len());
    for (name, value) in fields {
        let entry = match (node.properties.get(name), &node.additional) {
            (Some(property), _) => (key(escape(name)), self::value(value, property)),
            (None, Additional::Schema(values)) => (key(name.clone()), self::value(value, values)),
            (None, Additional::Any(true)) => (key(name.clone()), self::value(value, &free)),
            _ if node.kind.is_empty() => (key(name.clone()), self::value(value, &free)),
            _ if node.is_object_root && name == "metadata" => (key(name.clone()), metadata(value)),
            _ if node.is_object_root && matches!(name.as_str(), "apiVersion" | "kind") => {
                (key(name.clone()), self::value(value, &free))
            }
            _ => continue,
        };
        seen.insert(entry.0, entry.1);
    }
    seen
}

/// Of an object's metadata rules see the names only.
fn metadata(value: &Value) -> Box<dyn Val> {
    let names = ["name", "generateName"].iter().filter_map(|name| {
        let text = value.get(*name)?.as_str()?.to_owned();
        let value: Box<dyn Val> = Box::new(CelString::from(text));
        Some((CelMapKey::String(CelString::from((*name).to_owned())), value))
    });
    Box::new(CelMap::from(names.collect::<Entries>()))
}
