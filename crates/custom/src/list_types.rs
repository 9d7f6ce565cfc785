//! Lists that are sets or maps hold each item once.

use std::collections::HashMap;

use kedge_meta::FieldError;
use serde_json::{Map, Value};

use crate::node::Node;
use crate::place::Place;

/// Appends what stands twice where it may stand once.
pub(crate) fn check(value: &Value, node: &Node, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    if let Value::Array(list) = value {
        match node.list_type.as_str() {
            "set" => repeated(list.iter().map(Value::to_string), list, place, errors),
            "map" => keyed(list, node, place, errors),
            _ => {}
        }
    }
    node.for_each_below(value, place, &mut |value, node, place| check(value, node, place, errors));
}

fn keyed(list: &[Value], node: &Node, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    if let Some(index) = list.iter().position(|item| !item.is_object() && !item.is_null()) {
        let why = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(&place.index(index).path(), &list[index], why));
        return;
    }
    let keys: Vec<Value> = list
        .iter()
        .map(|item| {
            let key = |name: &String| item.get(name).map(|value| (name.clone(), value.clone()));
            Value::Object(node.list_keys.iter().filter_map(key).collect::<Map<_, _>>())
        })
        .collect();
    repeated(keys.iter().map(Value::to_string), &keys, place, errors);
}

/// Each text that comes again is told once, at its second place.
fn repeated(texts: impl Iterator<Item = String>, values: &[Value], place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(values.len());
    for (index, text) in texts.enumerate() {
        let times = seen.entry(text).or_default();
        *times += 1;
        if *times == 2 {
            errors.push(FieldError::duplicate(&place.index(index).path(), &values[index]));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_and_maps_hold_each_item_once() {
        let node = Node::read(&json!({"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"],
                "items": {"type": "object"}}}}));
        let mut errors = Vec::new();
        let value = json!({"set": ["x", "y", "x", "x"], "map": [{"a": 1, "b": 1}, {"a": 2}, {"a": 1}]});
        check(&value, &node, &Place::ROOT, &mut errors);
        let mut texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        texts.sort();
        assert_eq!(texts, ["map[2]: Duplicate value: {\"a\":1}", "set[2]: Duplicate value: \"x\""]);
    }
}
