//! The kinds of `resource.k8s.io`.
//!
//! `v1beta2` has the shape of `v1`. The shape of `v1beta1` differs and is not converted, so it must not be served.

mod attributes;
mod claim;
mod device_class;
mod names;
mod policy;
mod selectors;
mod slice;

use jiff::Timestamp;
use serde_json::Value;

use crate::generic::{Generic, Printed};
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name, since};
use crate::value::{at, is_set, text};

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "deviceclasses" => &device_class::DeviceClass,
        "resourceclaimtemplates" => &claim::ResourceClaimTemplate,
        "resourceclaims" => &claim::ResourceClaim,
        "resourceslices" => &slice::ResourceSlice,
        "devicetaintrules" => &Printed { generic: Generic::COUNTED, columns: TAINT_COLUMNS, row: taint_row },
        _ => &Generic::PLAIN,
    }
}

const NAME_AND_AGE: &[Column] = &[NAME, AGE];

const CLAIM_COLUMNS: &[Column] = &[NAME, column("State", "string", "Whether the claim is allocated and reserved"), AGE];

const SLICE_COLUMNS: &[Column] = &[
    NAME,
    column("Node", "string", "Node that has the devices"),
    column("Driver", "string", "Driver of the devices"),
    column("Pool", "string", "Pool of the devices"),
    AGE,
];

const TAINT_COLUMNS: &[Column] = &[
    NAME,
    column("Key", "string", "Key of the taint"),
    column("Value", "string", "Value of the taint"),
    column("Effect", "string", "Effect of the taint"),
    column("TimeAdded", "string", "Time since the taint was added"),
    AGE,
];

fn name_and_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

fn claim_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut states = Vec::new();
    let deleted = is_set(object, &["metadata", "deletionTimestamp"]);
    if deleted {
        states.push("deleted");
    }
    if at(object, &["status", "allocation"]).is_some() {
        states.push("allocated");
        if is_set(object, &["status", "reservedFor"]) {
            states.push("reserved");
        }
    } else if !deleted {
        states.push("pending");
    }
    vec![name(object), Value::from(states.join(",")), age(object, now)]
}

fn slice_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let cell = |path: &[&str]| Value::from(text(object, path));
    vec![
        name(object),
        cell(&["spec", "nodeName"]),
        cell(&["spec", "driver"]),
        cell(&["spec", "pool", "name"]),
        age(object, now),
    ]
}

fn taint_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let cell = |field: &str| Value::from(text(object, &["spec", "taint", field]));
    let added = match text(object, &["spec", "taint", "timeAdded"]) {
        "" => String::new(),
        time => since(time, now),
    };
    vec![name(object), cell("key"), cell("value"), cell("effect"), Value::from(added), age(object, now)]
}
