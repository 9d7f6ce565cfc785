//! Secrets. `stringData` is folded into `data` and never stored.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Map, Value};

use super::config_map::{SIZE_LIMIT, decoded_length, immutable_data};
use crate::formats;
use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, child, entries, fill_text, map, remove, text};

/// Of secrets.
pub(crate) struct Secret;

const COLUMNS: &[Column] =
    &[NAME, column("Type", "string", "Which data it must have"), column("Data", "string", "How many keys it has"), AGE];

/// Keys that secrets of a type must have.
const REQUIRED_KEYS: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

impl Strategy for Secret {
    fn default(&self, object: &mut Value) {
        fill_text(object, "type", "Opaque");
        if let Some(Value::Object(plain)) = remove(object, "stringData")
            && let Some(Value::Object(data)) = child(object, "data")
        {
            data.extend(plain.into_iter().map(|(key, value)| {
                let encoded = encode(value.as_str().unwrap_or_default().as_bytes());
                (key, Value::from(encoded))
            }));
        }
        if map(object, &["data"]).is_some_and(Map::is_empty) {
            remove(object, "data");
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let path = Path::root("data");
        let mut size = 0;
        for (key, value) in entries(object, &["data"]) {
            path.key(key).check(errors, key, formats::config_key(key));
            size += decoded_length(value);
        }
        if size > SIZE_LIMIT {
            path.too_long(errors, SIZE_LIMIT);
        }
        required_keys(object, &path, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        Path::root("type").immutable(errors, at(new, &["type"]), at(old, &["type"]));
        immutable_data(new, old, &["data"], errors);
        self.validate_create(new, errors);
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let keys = map(object, &["data"]).map_or(0, |data| data.len());
        vec![name(object), Value::from(text(object, &["type"])), Value::from(keys), age(object, now)]
    }

    fn fields(&self) -> &[&str] {
        &["type"]
    }
}

fn required_keys(secret: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let kind = text(secret, &["type"]);
    let has = |key: &str| at(secret, &["data", key]).is_some();
    match kind {
        "kubernetes.io/service-account-token" => {
            const ANNOTATION: &str = "kubernetes.io/service-account.name";
            if text(secret, &["metadata", "annotations", ANNOTATION]).is_empty() {
                let metadata = Path::root("metadata");
                metadata.child("annotations").key(ANNOTATION).required(errors, "");
            }
        }
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            path.key("username").required(errors, "");
            path.key("password").required(errors, "");
        }
        _ => {
            let keys = REQUIRED_KEYS.iter().find(|(known, _)| *known == kind).map(|(_, keys)| *keys);
            for key in keys.unwrap_or_default().iter().filter(|key| !has(key)) {
                path.key(key).required(errors, "");
            }
        }
    }
}

/// Base64 with padding.
fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let index = (group >> (18 - 6 * digit)) & 0x3f;
            text.push(if digit > chunk.len() { '=' } else { char::from(ALPHABET[index as usize]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_data_is_folded_in() {
        for (plain, encoded) in [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("päss", "cMOkc3M=")] {
            let mut secret = json!({"data": {"kept": "AA=="}, "stringData": {"key": plain}});
            Secret.default(&mut secret);
            assert_eq!(secret, json!({"type": "Opaque", "data": {"kept": "AA==", "key": encoded}}));
        }
    }

    #[test]
    fn types_require_keys() {
        let check = |secret: Value, expected: &[&str]| {
            let mut errors = Vec::new();
            Secret.validate_create(&secret, &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(json!({"type": "Opaque"}), &[]);
        check(json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}), &["data[tls.key]: Required value"]);
        check(
            json!({"type": "kubernetes.io/basic-auth"}),
            &["data[username]: Required value", "data[password]: Required value"],
        );
        check(
            json!({"type": "kubernetes.io/service-account-token"}),
            &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        );
    }
}
