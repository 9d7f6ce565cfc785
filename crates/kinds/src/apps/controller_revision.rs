//! ControllerRevisions: immutable but for the revision's number.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, int, items, text, truth};

/// Of controllerrevisions.
pub(super) struct ControllerRevision;

const COLUMNS: &[Column] = &[
    NAME,
    column("Controller", "string", "Object that it is a revision of"),
    column("Revision", "string", "Number of the revision"),
    AGE,
];

impl Strategy for ControllerRevision {
    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        if at(object, &["data"]).is_none() {
            Path::root("data").required(errors, "data is mandatory");
        }
        Path::root("revision").not_negative(errors, int(object, &["revision"]).unwrap_or(0));
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        Path::root("data").immutable(errors, at(new, &["data"]), at(old, &["data"]));
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let references = items(object, &["metadata", "ownerReferences"]);
        let controller = match references.iter().find(|reference| truth(reference, &["controller"])) {
            None => "<none>".to_owned(),
            Some(reference) => {
                let kind = text(reference, &["kind"]).to_lowercase();
                let group = text(reference, &["apiVersion"]).split_once('/').map(|(group, _)| group);
                let dot = group.map(|group| format!(".{group}")).unwrap_or_default();
                format!("{kind}{dot}/{}", text(reference, &["name"]))
            }
        };
        let revision = int(object, &["revision"]).unwrap_or(0);
        vec![name(object), Value::from(controller), Value::from(revision), age(object, now)]
    }
}
