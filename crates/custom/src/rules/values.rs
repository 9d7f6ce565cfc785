//! JSON as CEL values, typed by the schema.
//!
//! Of structures only what the schema names is seen, under names that CEL can read.

use std::collections::HashMap;

use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString};
use cel::common::value::Val;
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
        Value::String(text) => Box::new(CelString::from(text.clone())),
        Value::Array(list) => {
            let free = Node::default();
            let items = node.items.as_deref().unwrap_or(&free);
            let list: Vec<Box<dyn Val>> = list.iter().map(|item| self::value(item, items)).collect();
            Box::new(CelList::from(list))
        }
        Value::Object(fields) => Box::new(CelMap::from(entries(fields, node))),
    }
}

fn entries(fields: &serde_json::Map<String, Value>, node: &Node) -> Entries {
    let free = Node::default();
    let key = |name: String| CelMapKey::String(CelString::from(name));
    let mut seen = Entries::with_capacity(fields.len());
    for (name, value) in fields {
        let entry = match (node.properties.get(name), &node.additional) {
            (Some(property), _) => (key(escaped(name)), self::value(value, property)),
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

/// Words that CEL keeps for itself.
const KEPT: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name of a field as rules write it.
pub(super) fn escaped(name: &str) -> String {
    if KEPT.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains(['.', '-', '/']) && !name.contains("__") {
        return name.to_owned();
    }
    let name = name.replace("__", "__underscores__");
    name.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}
