//! Events of the core group, which is also how events of `events.k8s.io` are stored.

use std::time::Duration;

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::formats;
use crate::path::Path;
use crate::strategy::{Column, NameRule, Strategy};
use crate::table::{column, name, since, wide};
use crate::value::{at, fill, int, is_set, text};

/// Of events.
pub(crate) struct Event;

/// How long upstream keeps events (`--event-ttl`).
pub(crate) const TIME_TO_LIVE: Duration = Duration::from_secs(3600);

pub(crate) const COLUMNS: &[Column] = &[
    column("Last Seen", "string", "Time since it last happened"),
    column("Type", "string", "Normal or Warning"),
    column("Reason", "string", "Why, in one word"),
    column("Object", "string", "What it is about"),
    wide("Subobject", "string", "Which part of the object it is about"),
    wide("Source", "string", "Who reports it"),
    column("Message", "string", "What happened"),
    wide("First Seen", "string", "Time since it first happened"),
    wide("Count", "string", "How often it happened"),
    Column { priority: 1, ..crate::table::NAME },
];

pub(crate) const FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

impl Strategy for Event {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn time_to_live(&self) -> Option<Duration> {
        Some(TIME_TO_LIVE)
    }

    fn default(&self, object: &mut Value) {
        fill(object, "source", json!({}));
        fill(object, "reportingComponent", "");
        fill(object, "reportingInstance", "");
        // Times are written even where there is none.
        ["eventTime", "firstTimestamp", "lastTimestamp"].iter().for_each(|field| fill(object, field, Value::Null));
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        validate(object, "reportingComponent", errors);
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        row(object, now)
    }

    fn fields(&self) -> &[&str] {
        FIELDS
    }

    fn field(&self, object: &Value, path: &str) -> String {
        field(object, path)
    }
}

/// What is wrong with an event in the stored form; `controller` is the request's name of `reportingComponent`.
pub(crate) fn validate(event: &Value, controller: &str, errors: &mut Vec<FieldError>) {
    let namespace = text(event, &["metadata", "namespace"]);
    let involved = text(event, &["involvedObject", "namespace"]);
    let timed = is_set(event, &["eventTime"]);
    let matches = match (timed, involved) {
        (false, "") => matches!(namespace, "" | "default"),
        (false, involved) => involved == namespace,
        (true, "") => matches!(namespace, "default" | "kube-system"),
        (true, _) => true,
    };
    if !matches {
        let path = Path::root("involvedObject");
        path.child("namespace").invalid(errors, involved, "does not match event.namespace");
    }
    if timed {
        let reporter = text(event, &["reportingComponent"]);
        if reporter.is_empty() {
            Path::root(controller).required(errors, "");
        }
        Path::root(controller).check(errors, reporter, formats::qualified_name(reporter));
        for field in ["reportingInstance", "action", "reason"] {
            if text(event, &[field]).is_empty() {
                Path::root(field).required(errors, "");
            }
            at_most(text(event, &[field]), 128, &Path::root(field), errors);
        }
        at_most(text(event, &["message"]), 1024, &Path::root("message"), errors);
    }
}

fn at_most(text: &str, limit: usize, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if text.len() > limit {
        path.invalid(errors, "", &format!("can have at most {limit} characters"));
    }
}

/// The cells of an event in the stored form.
pub(crate) fn row(event: &Value, now: Timestamp) -> Vec<Value> {
    let first = match text(event, &["firstTimestamp"]) {
        "" => since(text(event, &["eventTime"]), now),
        time => since(time, now),
    };
    let series = at(event, &["series"]);
    let last = match (series, text(event, &["lastTimestamp"])) {
        (Some(series), _) => since(text(series, &["lastObservedTime"]), now),
        (None, "") => first.clone(),
        (None, time) => since(time, now),
    };
    let count = match series {
        Some(series) => int(series, &["count"]).unwrap_or(0),
        None => int(event, &["count"]).unwrap_or(0).max(1),
    };
    let kind = text(event, &["involvedObject", "kind"]).to_lowercase();
    let target = match text(event, &["involvedObject", "name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        Value::from(last),
        Value::from(text(event, &["type"])),
        Value::from(text(event, &["reason"])),
        Value::from(target),
        Value::from(text(event, &["involvedObject", "fieldPath"])),
        Value::from(source(event)),
        Value::from(text(event, &["message"]).trim()),
        Value::from(first),
        Value::from(count),
        name(event),
    ]
}

fn source(event: &Value) -> String {
    let or = |first: &'static [&'static str], second: &'static str| match text(event, first) {
        "" => text(event, &[second]),
        found => found,
    };
    let component = or(&["source", "component"], "reportingComponent");
    match or(&["source", "host"], "reportingInstance") {
        "" => component.to_owned(),
        instance => format!("{component}, {instance}"),
    }
}

/// The value of a selectable field of an event in the stored form.
pub(crate) fn field(event: &Value, path: &str) -> String {
    match path {
        "source" => match text(event, &["source", "component"]) {
            "" => text(event, &["reportingComponent"]).to_owned(),
            component => component.to_owned(),
        },
        _ => crate::value::field_text(event, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_both_styles() {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let check = |event: Value, expected: Value| assert_eq!(Value::from(row(&event, now)), expected);
        check(
            json!({"metadata": {"name": "web.1"}, "type": "Normal", "reason": "Pulled", "message": "Pulled image \n",
                "count": 3, "firstTimestamp": "2026-01-01T23:50:00Z", "lastTimestamp": "2026-01-01T23:59:30Z",
                "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{web}"},
                "source": {"component": "kubelet", "host": "n1"}}),
            json!([
                "30s",
                "Normal",
                "Pulled",
                "pod/web",
                "spec.containers{web}",
                "kubelet, n1",
                "Pulled image",
                "10m",
                3,
                "web.1"
            ]),
        );
        check(
            json!({"metadata": {"name": "web.2"}, "type": "Warning", "reason": "FailedScheduling", "message": "no",
                "eventTime": "2026-01-01T23:59:00.000000Z", "involvedObject": {"kind": "Pod", "name": "web"},
                "series": {"count": 7, "lastObservedTime": "2026-01-01T23:59:55.000000Z"},
                "reportingComponent": "default-scheduler", "reportingInstance": "default-scheduler-n1", "source": {}}),
            json!([
                "5s",
                "Warning",
                "FailedScheduling",
                "pod/web",
                "",
                "default-scheduler, default-scheduler-n1",
                "no",
                "60s",
                7,
                "web.2"
            ]),
        );
    }

    #[test]
    fn fields_select() {
        let event = json!({"involvedObject": {"kind": "Pod"}, "reportingComponent": "kubelet", "source": {}});
        for (path, expected) in [("involvedObject.kind", "Pod"), ("source", "kubelet"), ("reason", "")] {
            assert_eq!(field(&event, path), expected, "{path}");
        }
    }
}
