//! The types that a schema gives to values, as rules see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kedge_expressions::{ObjectType, Scope, Type, readable_name};

use crate::node::{Additional, Node};

/// The names of a rule about values of `node`.
pub(crate) fn scope(node: &Node, optional_old: bool) -> Scope {
    // Of what has no type rules know nothing.
    let own = type_of(node, "self").unwrap_or(Type::Dyn);
    let old = if optional_old { Type::Opaque("optional_type".into(), vec![own.clone()]) } else { own.clone() };
    Scope::new([("self", own), ("oldSelf", old)])
}

/// The type of a position; absent where rules do not see it.
fn type_of(node: &Node, name: &str) -> Option<Type> {
    if node.int_or_string {
        return Some(Type::Dyn);
    }
    match node.kind.as_str() {
        "array" => Some(Type::list(type_of(node.items.as_deref()?, &format!("{name}.@items"))?)),
        "object" if !node.is_object_root && matches!(node.additional, Additional::Schema(_)) => map(node, name),
        "object" => Some(object(node, name)),
        "string" => Some(match node.bounds.format.as_str() {
            "byte" => Type::Bytes,
            "duration" => Type::Duration,
            "date" | "datetime" => Type::Timestamp,
            _ => Type::String,
        }),
        "boolean" => Some(Type::Bool),
        "number" => Some(Type::Double),
        "integer" => Some(Type::Int),
        _ => None,
    }
}

fn map(node: &Node, name: &str) -> Option<Type> {
    match &node.additional {
        Additional::Schema(values) => Some(Type::map(type_of(values, &format!("{name}.@elem"))?)),
        _ => None,
    }
}

fn object(node: &Node, name: &str) -> Type {
    let mut fields = BTreeMap::new();
    for (own, property) in &node.properties {
        let Some(own) = readable_name(own) else { continue };
        if let Some(of) = type_of(property, &format!("{name}.{own}")) {
            fields.insert(own, of);
        }
    }
    if node.is_object_root {
        let names = [("name", Type::String), ("generateName", Type::String)];
        fields.insert("metadata".to_owned(), Type::object(&format!("{name}.metadata"), names));
        fields.insert("apiVersion".to_owned(), Type::String);
        fields.insert("kind".to_owned(), Type::String);
    }
    Type::Object(ObjectType { name: name.into(), fields: Arc::new(fields) })
}
