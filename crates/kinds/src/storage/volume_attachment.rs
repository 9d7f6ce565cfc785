//! VolumeAttachments: the spec never changes.

use std::borrow::Cow;

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, child, fill, text, truth};
use crate::workload::SPEC;

/// Of volumeattachments.
pub(super) struct VolumeAttachment;

/// Upstream gives this column the format of names too.
const ATTACHER: Column = Column {
    name: Cow::Borrowed("Attacher"),
    kind: Cow::Borrowed("string"),
    format: Cow::Borrowed("name"),
    description: Cow::Borrowed("Driver that attaches it"),
    priority: 0,
};

const COLUMNS: &[Column] = &[
    NAME,
    ATTACHER,
    column("PV", "string", "Volume"),
    column("Node", "string", "Node"),
    column("Attached", "boolean", "Whether it is attached"),
    AGE,
];

impl Strategy for VolumeAttachment {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        if let Some(status) = child(object, "status") {
            fill(status, "attached", false);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        for field in ["attacher", "nodeName"] {
            if text(object, &["spec", field]).is_empty() {
                SPEC.child(field).required(errors, "");
            }
        }
        let source = SPEC.child("source");
        let volume = at(object, &["spec", "source", "persistentVolumeName"]).and_then(Value::as_str);
        let inline = at(object, &["spec", "source", "inlineVolumeSpec"]).is_some();
        match (inline, volume) {
            (false, None) => {
                source.required(errors, "must specify exactly one of inlineVolumeSpec and persistentVolumeName")
            }
            (true, Some(_)) => {
                source.forbidden(errors, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
            }
            (false, Some("")) => {
                source.child("persistentVolumeName").required(errors, "must specify non empty persistentVolumeName")
            }
            _ => {}
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        if at(new, &["spec"]) != at(old, &["spec"]) {
            Path::root("spec").invalid(errors, new["spec"].clone(), "field is immutable");
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cell = |path: &[&str]| Value::from(text(object, path));
        vec![
            name(object),
            cell(&["spec", "attacher"]),
            cell(&["spec", "source", "persistentVolumeName"]),
            cell(&["spec", "nodeName"]),
            Value::from(truth(object, &["status", "attached"])),
            age(object, now),
        ]
    }
}
