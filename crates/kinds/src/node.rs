//! The kinds of `node.k8s.io`: RuntimeClasses.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::formats;
use crate::generic::Generic;
use crate::metadata::label_errors;
use crate::path::Path;
use crate::pod_spec::{quantity_errors, toleration_errors};
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, entries, text};

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "runtimeclasses" => &RuntimeClass,
        _ => &Generic::PLAIN,
    }
}

/// Of runtimeclasses.
struct RuntimeClass;

const COLUMNS: &[Column] = &[NAME, column("Handler", "string", "Name of the handler in the container runtime"), AGE];

impl Strategy for RuntimeClass {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let handler = text(object, &["handler"]);
        Path::root("handler").check(errors, handler, formats::label(handler));
        for (resource, amount) in entries(object, &["overhead", "podFixed"]) {
            let overhead = Path::root("overhead");
            let fixed = overhead.child("podFixed");
            quantity_errors(resource, amount, &fixed.key(resource), errors);
        }
        if let Some(scheduling) = at(object, &["scheduling"]) {
            let path = Path::root("scheduling");
            label_errors(scheduling, "nodeSelector", &path, errors);
            toleration_errors(scheduling, &path, errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        Path::root("handler").immutable(errors, at(new, &["handler"]), at(old, &["handler"]));
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), Value::from(text(object, &["handler"])), age(object, now)]
    }
}
