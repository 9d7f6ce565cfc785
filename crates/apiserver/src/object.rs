//! Reading and writing an object's metadata in its JSON form.
//!
//! Knows `ObjectMeta` and nothing of kinds. Absent and empty are the same.

use kedge_meta::ObjectKey;
use serde_json::{Map, Value};

/// A string at a path of fields; empty where there is none.
pub(crate) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or("")
}

/// The value at a path of fields.
pub(crate) fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, name| value.get(*name))
}

/// The list at a path of fields; empty where there is none.
pub(crate) fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A metadata string.
pub(crate) fn meta<'a>(object: &'a Value, name: &str) -> &'a str {
    text(object, &["metadata", name])
}

/// `metadata.name`.
pub(crate) fn name(object: &Value) -> &str {
    meta(object, "name")
}

/// `metadata.namespace`.
pub(crate) fn namespace(object: &Value) -> &str {
    meta(object, "namespace")
}

/// Namespace and name.
pub(crate) fn key(object: &Value) -> ObjectKey {
    ObjectKey::new(namespace(object), name(object))
}

/// Whether deletion has begun.
pub(crate) fn is_deleting(object: &Value) -> bool {
    !meta(object, "deletionTimestamp").is_empty()
}

/// `metadata.finalizers`.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    list(object, &["metadata", "finalizers"]).iter().filter_map(Value::as_str).collect()
}

/// `metadata.annotations[key]`.
pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, &["metadata", "annotations", key]).and_then(Value::as_str)
}

/// `metadata.labels[key]`.
pub(crate) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, &["metadata", "labels", key]).and_then(Value::as_str)
}

/// The metadata, made where it is missing.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    child_mut(object, "metadata")
}

/// An object field, made where it is missing or no object.
pub(crate) fn child_mut<'a>(object: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let fields = object.as_object_mut().expect("it was made an object");
    let child = fields.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    child.as_object_mut().expect("it was made an object")
}

/// Sets a metadata field; an empty text removes it.
pub(crate) fn set_meta(object: &mut Value, name: &str, text: &str) {
    let metadata = metadata_mut(object);
    match text.is_empty() {
        true => metadata.remove(name),
        false => metadata.insert(name.to_owned(), Value::from(text)),
    };
}

/// Sets the finalizers; none removes the field.
pub(crate) fn set_finalizers(object: &mut Value, finalizers: Vec<String>) {
    let metadata = metadata_mut(object);
    match finalizers.is_empty() {
        true => metadata.remove("finalizers"),
        false => metadata.insert("finalizers".to_owned(), Value::from(finalizers)),
    };
}

/// Takes over a field from another object, absence included.
pub(crate) fn copy_field(from: &Value, to: &mut Value, name: &str) {
    let Some(fields) = to.as_object_mut() else { return };
    match from.get(name) {
        Some(value) => fields.insert(name.to_owned(), value.clone()),
        None => fields.remove(name),
    };
}

/// Takes over a metadata field from another object, absence included.
pub(crate) fn copy_meta(from: &Value, to: &mut Value, name: &str) {
    let value = at(from, &["metadata", name]).cloned();
    let metadata = metadata_mut(to);
    match value {
        Some(value) => metadata.insert(name.to_owned(), value),
        None => metadata.remove(name),
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_is_read_and_written() {
        let mut object = json!({"kind": "Pod"});
        set_meta(&mut object, "name", "a");
        set_finalizers(&mut object, vec!["x/y".to_owned()]);
        assert_eq!((name(&object), namespace(&object), finalizers(&object)), ("a", "", vec!["x/y"]));
        set_finalizers(&mut object, Vec::new());
        set_meta(&mut object, "name", "");
        assert_eq!(object, json!({"kind": "Pod", "metadata": {}}));
        let from = json!({"metadata": {"uid": "1"}, "status": {"x": 1}});
        copy_meta(&from, &mut object, "uid");
        copy_field(&from, &mut object, "status");
        copy_field(&from, &mut object, "kind");
        assert_eq!(object, json!({"metadata": {"uid": "1"}, "status": {"x": 1}}));
    }
}
