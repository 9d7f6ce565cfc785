//! Access to decoded JSON: reading along paths, filling in what is absent.
//!
//! The invariant: reading never fails and never copies; a wrong type reads as absent, since the decoder has checked types
//! before any strategy sees an object.

use serde_json::{Map, Value};

/// The value at a path; `None` where it is absent or null.
pub(crate) fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    let mut value = object;
    for field in path {
        value = value.get(*field)?;
    }
    (!value.is_null()).then_some(value)
}

/// The value at a path, to be changed.
pub(crate) fn at_mut<'a>(object: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    let mut value = object;
    for field in path {
        value = value.get_mut(*field)?;
    }
    (!value.is_null()).then_some(value)
}

/// The text at a path; empty where it is absent.
pub(crate) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a path.
pub(crate) fn int(object: &Value, path: &[&str]) -> Option<i64> {
    at(object, path).and_then(Value::as_i64)
}

/// The boolean at a path; `false` where it is absent.
pub(crate) fn truth(object: &Value, path: &[&str]) -> bool {
    at(object, path).and_then(Value::as_bool).unwrap_or_default()
}

/// The items of the list at a path; empty where it is absent.
pub(crate) fn items<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The items of the list at a path, to be changed.
pub(crate) fn items_mut<'a>(object: &'a mut Value, path: &[&str]) -> &'a mut [Value] {
    at_mut(object, path).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

/// The map at a path.
pub(crate) fn map<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Map<String, Value>> {
    at(object, path).and_then(Value::as_object)
}

/// The entries of the map at a path; none where it is absent.
pub(crate) fn entries<'a>(object: &'a Value, path: &[&str]) -> impl Iterator<Item = (&'a String, &'a Value)> {
    map(object, path).into_iter().flatten()
}

/// The texts in the list at a path.
pub(crate) fn texts<'a>(object: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a str> {
    items(object, path).iter().filter_map(Value::as_str)
}

/// Whether a value is there and is neither empty text, list nor map.
pub(crate) fn is_set(object: &Value, path: &[&str]) -> bool {
    at(object, path).is_some_and(|value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    })
}

/// Sets a field that is absent or null.
pub(crate) fn fill(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(fields) = object.as_object_mut() {
        match fields.get_mut(field) {
            Some(present) if !present.is_null() => {}
            Some(null) => *null = value.into(),
            None => {
                fields.insert(field.to_owned(), value.into());
            }
        }
    }
}

/// Sets a text field that is absent or empty.
pub(crate) fn fill_text(object: &mut Value, field: &str, value: &str) {
    if text(object, &[field]).is_empty() {
        set(object, field, value);
    }
}

/// The map in a field, made where it is absent. `None` where `object` is no map.
pub(crate) fn child<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    fill(object, field, Value::Object(Map::new()));
    object.get_mut(field)
}

/// Sets a field.
pub(crate) fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value.into());
    }
}

/// Removes a field; what was there.
pub(crate) fn remove(object: &mut Value, field: &str) -> Option<Value> {
    object.as_object_mut()?.remove(field)
}

/// Makes a field of `new` what it is in `old`, absent where it is absent there.
pub(crate) fn keep(new: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) if new.get(field) == Some(value) => {}
        Some(value) => set(new, field, value.clone()),
        None => {
            remove(new, field);
        }
    }
}

/// The value of a dotted path as field selectors compare it: numbers and booleans as text, empty where it is absent.
pub(crate) fn field_text(object: &Value, path: &str) -> String {
    let mut value = object;
    for field in path.split('.') {
        match value.get(field) {
            Some(below) => value = below,
            None => return String::new(),
        }
    }
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        _ => String::new(),
    }
}
