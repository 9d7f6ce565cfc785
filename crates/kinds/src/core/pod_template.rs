//! PodTemplates.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::path::Path;
use crate::pod_spec::{default_pod_spec, validate_template};
use crate::strategy::{Column, Strategy};
use crate::table::{NAME, column, containers, labels, name};
use crate::value::{at, at_mut};

/// Of podtemplates.
pub(super) struct PodTemplate;

const COLUMNS: &[Column] = &[
    NAME,
    column("Containers", "string", "Names of the template's containers"),
    column("Images", "string", "Images of the template's containers"),
    column("Pod Labels", "string", "Labels of the template's pods"),
];

impl Strategy for PodTemplate {
    fn has_generation(&self) -> bool {
        true
    }

    fn generation_fields(&self) -> &[&str] {
        &["template"]
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = at_mut(object, &["template", "spec"]) {
            default_pod_spec(spec);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        validate_template(&object["template"], &Path::root("template"), errors);
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let (names, images) = containers(at(object, &["template", "spec"]));
        vec![name(object), names, images, Value::from(labels(object, &["template", "metadata", "labels"]))]
    }

    fn pod_spec_path(&self) -> Option<&[&str]> {
        Some(&["template", "spec"])
    }
}
