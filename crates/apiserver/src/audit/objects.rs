//! Objects in the audit log: what was sent and what was answered, as JSON, whatever form they had.
//!
//! Invariant: what is no object is left out; plain JSON is not taken apart where nothing has to be left out of it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response};
use kedge_audit::{ObjectReference, ResponseStatus, object, object_of_json};
use kedge_schema::{BodyFormat, PROTOBUF};
use memchr::memmem;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::body::Body;
use crate::object::{meta, text};
use crate::scan;

const MANAGED_FIELDS: &str = "managedFields";

/// How large an answer to a deletion may be that is looked into for a Status.
const LARGEST_STATUS: usize = 16 << 10;

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Yaml,
    Protobuf,
}

impl Format {
    /// By the content type; patches are JSON but for applies, which may be YAML.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match text.split(';').next().unwrap_or_default().trim() {
            "application/yaml" | "application/apply-patch+yaml" => Self::Yaml,
            PROTOBUF => Self::Protobuf,
            _ => Self::Json,
        }
    }
}

fn document(format: Format, body: &[u8]) -> Option<Value> {
    match format {
        Format::Json => serde_json::from_slice(body).ok(),
        Format::Yaml => kedge_schema::decode_untyped(body, BodyFormat::Yaml).ok().map(|read| read.value),
        Format::Protobuf => {
            let told = kedge_schema::peek_type_meta(body, BodyFormat::Protobuf).ok()?;
            let (group, version) = told.api_version.split_once('/').unwrap_or(("", &told.api_version));
            let schema = kedge_schema::Schema::of(kedge_schema::type_by_gvk(group, version, &told.kind)?);
            kedge_schema::decode_protobuf(body, schema).ok().map(|read| read.value)
        }
    }
}

/// A body as an event carries it.
pub(super) fn read(format: Format, body: &[u8], strips: bool) -> Option<Arc<RawValue>> {
    let strips = strips && memmem::find(body, MANAGED_FIELDS.as_bytes()).is_some();
    if format == Format::Json && !strips {
        return object_of_json(body);
    }
    let mut document = document(format, body)?;
    if strips || format == Format::Protobuf {
        strip(&mut document);
    }
    object(&document)
}

/// Takes `managedFields` out of an object, and out of all objects of a list or table.
fn strip(document: &mut Value) {
    let strip_one = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove(MANAGED_FIELDS);
        }
    };
    strip_one(document);
    for item in document.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        strip_one(item);
    }
    for row in document.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(object) = row.get_mut("object") {
            strip_one(object);
        }
    }
}

/// Fills in what the path does not say and the object does.
pub(super) fn complete(reference: &mut ObjectReference, format: Format, body: &[u8]) {
    let fill = |field: &mut String, text: &str| {
        if field.is_empty() {
            field.push_str(text);
        }
    };
    let fields = [
        (&mut reference.namespace, "namespace"),
        (&mut reference.name, "name"),
        (&mut reference.uid, "uid"),
        (&mut reference.resource_version, "resourceVersion"),
    ];
    if format == Format::Json {
        // Reading a field of what is no JSON finds nothing.
        return fields.into_iter().for_each(|(field, name)| fill(field, &scan::text(body, &["metadata", name])));
    }
    let Some(document) = document(format, body) else { return };
    fields.into_iter().for_each(|(field, name)| fill(field, meta(&document, name)));
}

/// The bytes of an answer, unless it is a stream.
fn bytes(response: &Response<Body>) -> Option<Bytes> {
    response.body().snapshot()
}

/// An answer as an event carries it.
pub(super) fn answer(response: &Response<Body>, strips: bool) -> Option<Arc<RawValue>> {
    read(Format::of(response.headers()), &bytes(response)?, strips)
}

/// The Status that a deletion is answered with.
pub(super) fn status(verb: &str, response: &Response<Body>) -> Option<ResponseStatus> {
    let length = response.body().length()?;
    if !matches!(verb, "delete" | "deletecollection") || length > LARGEST_STATUS {
        return None;
    }
    let document = document(Format::of(response.headers()), &bytes(response)?)?;
    let code = response.status().as_u16();
    (text(&document, &["kind"]) == "Status").then(|| ResponseStatus::of_status(&document, code))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(format: Format, body: &[u8], strips: bool, expected: Option<&str>) {
        let found = read(format, body, strips);
        assert_eq!(found.as_deref().map(RawValue::get), expected, "{}", String::from_utf8_lossy(body));
    }

    #[test]
    fn objects_become_json() {
        check(Format::Json, br#"{"a": 1}"#, true, Some(r#"{"a": 1}"#));
        check(Format::Json, b"a: 1", false, None);
        check(Format::Yaml, b"a: 1\nb: [x]\n", false, Some(r#"{"a":1,"b":["x"]}"#));
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
        let encoded = kedge_schema::encode_protobuf(&pod).unwrap();
        let found = read(Format::Protobuf, &encoded, false).unwrap();
        let found: Value = serde_json::from_str(found.get()).unwrap();
        assert_eq!((&found["kind"], &found["metadata"]["name"]), (&json!("Pod"), &json!("a")));
        check(Format::Protobuf, b"k8s\0nonsense", false, None);
    }

    #[test]
    fn managed_fields_are_left_out_where_they_are() {
        let object = json!({"metadata": {"name": "a", "managedFields": [{}]}});
        let stripped = json!({"metadata": {"name": "a"}});
        let of = |document: Value| {
            let text = document.to_string();
            serde_json::from_str::<Value>(read(Format::Json, text.as_bytes(), true).unwrap().get()).unwrap()
        };
        assert_eq!(of(object.clone()), stripped);
        assert_eq!(of(json!({"metadata": {}, "items": [object]})), json!({"metadata": {}, "items": [stripped]}));
        assert_eq!(of(json!({"rows": [{"object": object}]})), json!({"rows": [{"object": stripped}]}));
    }

    #[test]
    fn references_are_completed_and_not_changed() {
        let of = |format, body: &[u8]| {
            let mut reference = ObjectReference { namespace: "n".to_owned(), ..ObjectReference::default() };
            complete(&mut reference, format, body);
            [reference.namespace, reference.name, reference.uid, reference.resource_version]
        };
        let sent = br#"{"metadata":{"name":"a","namespace":"other","uid":"u","resourceVersion":"7"}}"#;
        assert_eq!(of(Format::Json, sent), ["n", "a", "u", "7"]);
        assert_eq!(of(Format::Yaml, b"metadata: {name: a}"), ["n", "a", "", ""]);
        assert_eq!(of(Format::Json, b"nonsense"), ["n", "", "", ""]);
    }
}
