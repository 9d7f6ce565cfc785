//! ComponentStatuses: never stored; only their row is particular.

use jiff::Timestamp;
use serde_json::Value;

use crate::strategy::{Column, Strategy};
use crate::table::{NAME, column, name};
use crate::value::{items, text};

/// Of componentstatuses.
pub(super) struct ComponentStatus;

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "Whether the component is healthy"),
    column("Message", "string", "What the component says"),
    column("Error", "string", "What went wrong"),
];

impl Strategy for ComponentStatus {
    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let healthy = items(object, &["conditions"]).iter().find(|condition| text(condition, &["type"]) == "Healthy");
        let (status, message, error) = match healthy {
            None => ("Unknown", "", ""),
            Some(condition) => {
                let status = if text(condition, &["status"]) == "True" { "Healthy" } else { "Unhealthy" };
                (status, text(condition, &["message"]), text(condition, &["error"]))
            }
        };
        vec![name(object), Value::from(status), Value::from(message), Value::from(error)]
    }
}
