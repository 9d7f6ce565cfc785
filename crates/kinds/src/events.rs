//! `events.k8s.io`: another form of the core group's events, converted without loss both ways.

use std::time::Duration;

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::core::event;
use crate::generic::Generic;
use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::value::{at, fill, int, is_set, remove, set, text};

/// Fields that go by another name: in `events.k8s.io`, in the core group.
const NAMES: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Of events in `events.k8s.io`.
struct Event;

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "events" => &Event,
        _ => &Generic::PLAIN,
    }
}

impl Strategy for Event {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn time_to_live(&self) -> Option<Duration> {
        Some(event::TIME_TO_LIVE)
    }

    fn default(&self, object: &mut Value) {
        // The internal form always has these two; they come back as empty maps.
        fill(object, "deprecatedSource", serde_json::json!({}));
        fill(object, "regarding", serde_json::json!({}));
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        shared(object, errors);
        series(object, errors);
        if !is_set(object, &["eventTime"]) {
            Path::root("eventTime").required(errors, "");
        }
        let kind = text(object, &["type"]);
        if !matches!(kind, "Normal" | "Warning") {
            Path::root("type").invalid(errors, "", &format!("has invalid value: {kind}"));
        }
        for (own, stored) in &NAMES[3..] {
            if is_set(object, &[own]) && int(object, &[own]) != Some(0) {
                Path::root(stored).invalid(errors, "", "needs to be unset");
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        shared(new, errors);
        if at(new, &["series"]) != at(old, &["series"]) {
            series(new, errors);
        }
        for (own, stored) in NAMES {
            Path::root(stored).immutable(errors, at(new, &[own]), at(old, &[own]));
        }
        for field in ["reason", "type", "eventTime", "action", "related", "reportingInstance"] {
            Path::root(field).immutable(errors, at(new, &[field]), at(old, &[field]));
        }
    }

    fn columns(&self) -> &[Column] {
        event::COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        event::row(&stored(object), now)
    }

    fn fields(&self) -> &[&str] {
        &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ]
    }

    fn field(&self, object: &Value, path: &str) -> String {
        // Selectors are also asked of stored objects, which are in the core group's form.
        let stored_form = object.get("involvedObject").is_some();
        match (stored_form, path.split_once('.')) {
            (true, Some(("regarding", field))) => crate::value::field_text(&object["involvedObject"], field),
            (true, _) if path == "reportingController" => crate::value::field_text(object, "reportingComponent"),
            _ => crate::value::field_text(object, path),
        }
    }

    fn convert_to_storage(&self, object: &mut Value, _version: &str) {
        for (own, stored) in NAMES {
            if let Some(value) = remove(object, own) {
                set(object, stored, value);
            }
        }
        // Required in the core group's form.
        fill(object, "involvedObject", serde_json::json!({}));
        fill(object, "source", serde_json::json!({}));
        fill(object, "reportingComponent", "");
        fill(object, "reportingInstance", "");
    }

    fn convert_from_storage(&self, object: &mut Value, _version: &str) {
        for (own, stored) in NAMES {
            if let Some(value) = remove(object, stored) {
                set(object, own, value);
            }
        }
        for field in ["reportingController", "reportingInstance"] {
            if text(object, &[field]).is_empty() {
                remove(object, field);
            }
        }
        fill(object, "eventTime", Value::Null);
    }
}

fn stored(object: &Value) -> Value {
    let mut stored = object.clone();
    Event.convert_to_storage(&mut stored, "v1");
    stored
}

fn shared(object: &Value, errors: &mut Vec<FieldError>) {
    event::validate(&stored(object), "reportingController", errors);
}

fn series(object: &Value, errors: &mut Vec<FieldError>) {
    let Some(series) = at(object, &["series"]) else { return };
    if int(series, &["count"]).unwrap_or(0) < 2 {
        Path::root("series.count").invalid(errors, "", "should be at least 2");
    }
    if !is_set(series, &["lastObservedTime"]) {
        Path::root("series.lastObservedTime").required(errors, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn converting_there_and_back_loses_nothing() {
        let kind = crate::builtin("events.k8s.io", "v1", "Event").unwrap();
        let original = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a", "namespace": "default"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "regarding": {"kind": "Pod", "name": "web"}, "note": "done",
            "reportingController": "c.io/x", "reportingInstance": "x-1", "action": "Run", "reason": "Ran",
            "type": "Normal", "deprecatedSource": {"component": "x"}, "deprecatedCount": 2,
            "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
        let mut object = original.clone();
        kind.to_storage(&mut object);
        assert_eq!(object["apiVersion"], "v1");
        assert_eq!(object["involvedObject"], json!({"kind": "Pod", "name": "web"}));
        assert_eq!((&object["message"], &object["count"]), (&json!("done"), &json!(2)));
        kind.from_storage(&mut object);
        assert_eq!(object, original);
    }

    #[test]
    fn fields_are_found_in_both_forms() {
        for object in [json!({"regarding": {"kind": "Pod"}}), json!({"involvedObject": {"kind": "Pod"}})] {
            assert_eq!(Event.field(&object, "regarding.kind"), "Pod");
        }
    }

    #[test]
    fn new_events_need_the_new_fields() {
        let mut errors = Vec::new();
        let event = json!({"metadata": {"namespace": "default"}, "regarding": {"namespace": "default"}, "type": "Odd",
            "deprecatedCount": 1});
        Event.validate_create(&event, &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "eventTime: Required value",
                "type: Invalid value: \"\": has invalid value: Odd",
                "count: Invalid value: \"\": needs to be unset",
            ]
        );
    }
}
