//! ConfigMaps, and what Secrets share with them: keys, size, immutability.

use jiff::Timestamp;
use kedge_meta::{FieldError, FieldPath};
use serde_json::Value;

use crate::formats;
use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, entries, map, truth};

/// Of configmaps.
pub(crate) struct ConfigMap;

/// The most that all values may hold, in bytes.
pub(super) const SIZE_LIMIT: usize = 1024 * 1024;

const COLUMNS: &[Column] = &[NAME, column("Data", "string", "How many keys it has"), AGE];

impl Strategy for ConfigMap {
    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let mut size = 0;
        let data = Path::root("data");
        for (key, value) in entries(object, &["data"]) {
            data.key(key).check(errors, key, formats::config_key(key));
            if at(object, &["binaryData", key]).is_some() {
                data.key(key).invalid(errors, key.as_str(), "duplicate of key present in binaryData");
            }
            size += value.as_str().map_or(0, str::len);
        }
        let binary = Path::root("binaryData");
        for (key, value) in entries(object, &["binaryData"]) {
            binary.key(key).check(errors, key, formats::config_key(key));
            size += decoded_length(value);
        }
        if size > SIZE_LIMIT {
            errors.push(FieldError::too_long(&FieldPath::default(), SIZE_LIMIT));
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        immutable_data(new, old, &["data", "binaryData"], errors);
        self.validate_create(new, errors);
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let keys: usize =
            ["data", "binaryData"].iter().filter_map(|field| map(object, &[field])).map(|map| map.len()).sum();
        vec![name(object), Value::from(keys), age(object, now)]
    }
}

/// The length of base64 text when decoded.
pub(super) fn decoded_length(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    text.trim_end_matches('=').len() * 3 / 4
}

/// What an object with `immutable: true` may not change.
pub(super) fn immutable_data(new: &Value, old: &Value, fields: &[&str], errors: &mut Vec<FieldError>) {
    const WHY: &str = "field is immutable when `immutable` is set";
    if !truth(old, &["immutable"]) {
        return;
    }
    if !truth(new, &["immutable"]) {
        Path::root("immutable").forbidden(errors, WHY);
    }
    for field in fields.iter().filter(|field| at(new, &[field]) != at(old, &[field])) {
        Path::root(field).forbidden(errors, WHY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_sizes_and_immutability() {
        let check = |new: Value, old: Option<Value>, expected: &[&str]| {
            let mut errors = Vec::new();
            match &old {
                None => ConfigMap.validate_create(&new, &mut errors),
                Some(old) => ConfigMap.validate_update(&new, old, &mut errors),
            }
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(texts.len(), expected.len(), "{texts:?}");
            for (text, expected) in texts.iter().zip(expected) {
                assert!(text.starts_with(expected), "{texts:?}");
            }
        };
        check(json!({"data": {"a.conf": "x"}, "binaryData": {"b": "AA=="}}), None, &[]);
        check(json!({"data": {"a b": ""}}), None, &["data[a b]: Invalid value: \"a b\": a valid config key must"]);
        check(
            json!({"data": {"a": ""}, "binaryData": {"a": ""}}),
            None,
            &["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"],
        );
        check(
            json!({"data": {"a": "x".repeat(SIZE_LIMIT + 1)}}),
            None,
            &["Too long: may not be more than 1048576 bytes"],
        );
        check(
            json!({"data": {"a": "2"}}),
            Some(json!({"immutable": true, "data": {"a": "1"}})),
            &[
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ],
        );
    }
}
