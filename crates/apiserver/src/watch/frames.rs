//! The events of a watch as bytes, and those that no object stands behind.

use bytes::{Bytes, BytesMut};
use kedge_meta::ApiStatus;
use kedge_store::Revision;
use serde_json::{Value, json};

use crate::protobuf;

pub(super) fn expired(requested: u64, oldest: Revision) -> ApiStatus {
    ApiStatus::expired(format!("too old resource version: {requested} ({oldest})"))
}

/// An event of its own making.
pub(super) fn frame(kind: &str, object: &Value, protobuf: bool) -> Bytes {
    let mut bytes = BytesMut::new();
    match protobuf {
        true => protobuf::write_event(&mut bytes, kind, object),
        false => write_event(&mut bytes, kind, object.to_string().as_bytes()),
    }
    bytes.freeze()
}

pub(super) fn write_event(bytes: &mut BytesMut, kind: &str, object: &[u8]) {
    bytes.extend_from_slice(b"{\"type\":\"");
    bytes.extend_from_slice(kind.as_bytes());
    bytes.extend_from_slice(b"\",\"object\":");
    bytes.extend_from_slice(object);
    bytes.extend_from_slice(b"}\n");
}

pub(super) fn table_bookmark(version: &str, metadata: &Value) -> Value {
    let object = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
    json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "columnDefinitions": [],
        "metadata": {"resourceVersion": metadata["resourceVersion"]}, "rows": [{"cells": [], "object": object}]})
}
