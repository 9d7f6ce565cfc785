//! Tables, with the columns of the metrics server.
//!
//! Pure.

use serde_json::{Value, json};

use crate::query::Include;
use crate::usage::{cpu_text, duration_text, memory_text};

/// One object with what its row shows.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
    pub(crate) window: std::time::Duration,
    pub(crate) object: Value,
}

/// A table of these rows.
pub(crate) fn table(version: &str, include: Include, rows: &[Row]) -> Value {
    let column = |name: &str, format: &str, description: &str| json!({"name": name, "type": "string", "format": format, "description": description, "priority": 0});
    let columns = [
        column("Name", "name", "Name of the resource"),
        column("cpu", "quantity", ""),
        column("memory", "quantity", ""),
        column("Window", "duration", ""),
    ];
    let rows: Vec<Value> =
        rows.iter().map(|row| json!({"cells": cells(row), "object": included(row, include)})).collect();
    json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {},
        "columnDefinitions": columns, "rows": rows})
}

fn cells(row: &Row) -> [String; 4] {
    [row.name.clone(), cpu_text(row.cpu), memory_text(row.memory), duration_text(row.window)]
}

fn included(row: &Row, include: Include) -> Value {
    match include {
        Include::Nothing => Value::Null,
        Include::Metadata => metadata(&row.object),
        Include::Object => row.object.clone(),
    }
}

/// Only the metadata of an object.
pub(crate) fn metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
