//! ReplicationControllers: ReplicaSets with a plain map as selector.

use std::borrow::Cow;

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::strategy::{Column, Propagation, ScalePaths, Strategy};
use crate::table::{AGE, NAME, age, column, containers, labels, name, wide};
use crate::value::{at, child, entries, fill, int, is_set};
use crate::workload::{
    SPEC, TEMPLATE_SPEC, default_workload, fill_spec, not_negative, replica_counts, restarting_template_errors,
    template_warnings,
};

/// Of replicationcontrollers.
pub(super) struct ReplicationController;

const COLUMNS: &[Column] = &[
    NAME,
    column("Desired", "integer", "Pods that are wanted"),
    column("Current", "integer", "Pods that there are"),
    column("Ready", "integer", "Pods that are ready"),
    AGE,
    wide("Containers", "string", "Names of the template's containers"),
    wide("Images", "string", "Images of the template's containers"),
    wide("Selector", "string", "Labels of its pods"),
];

impl Strategy for ReplicationController {
    fn has_generation(&self) -> bool {
        true
    }

    fn default_propagation(&self) -> Propagation {
        Propagation::Orphan
    }

    fn default(&self, object: &mut Value) {
        let template_labels = at(object, &["spec", "template", "metadata", "labels"]).cloned();
        if let Some(labels) = template_labels {
            if !is_set(object, &["spec", "selector"]) {
                fill_spec(object, "selector", labels.clone());
            }
            if !is_set(object, &["metadata", "labels"])
                && let Some(metadata) = child(object, "metadata")
            {
                fill(metadata, "labels", labels);
            }
        }
        default_workload(object, &["replicas"]);
        fill_spec(object, "replicas", 1);
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        not_negative(spec, &["minReadySeconds"], &SPEC, errors);
        if !is_set(spec, &["selector"]) {
            SPEC.child("selector").required(errors, "");
        }
        not_negative(spec, &["replicas"], &SPEC, errors);
        if at(spec, &["template"]).is_none() {
            return SPEC.child("template").required(errors, "");
        }
        let labels = at(spec, &["template", "metadata", "labels"]);
        let selected = entries(spec, &["selector"])
            .all(|(key, value)| labels.and_then(|labels| labels.get(key.as_str())) == Some(value));
        if !selected {
            let template = SPEC.child("template");
            let metadata = template.child("metadata");
            let why = "`selector` does not match template `labels`";
            metadata.child("labels").invalid(errors, labels.cloned().unwrap_or(Value::Null), why);
        }
        restarting_template_errors(spec, "ReplicationController", errors);
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        replica_counts(&new["status"], &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], errors);
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        template_warnings(new)
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = |path: &[&str]| Value::from(int(object, path).unwrap_or(0));
        let (names, images) = containers(at(object, TEMPLATE_SPEC));
        vec![
            name(object),
            count(&["spec", "replicas"]),
            count(&["status", "replicas"]),
            count(&["status", "readyReplicas"]),
            age(object, now),
            names,
            images,
            Value::from(labels(object, &["spec", "selector"])),
        ]
    }

    fn fields(&self) -> &[&str] {
        &["status.replicas"]
    }

    fn scale(&self) -> Option<ScalePaths<'_>> {
        Some(ScalePaths {
            replicas: Cow::Borrowed(&["spec", "replicas"]),
            status_replicas: Cow::Borrowed(&["status", "replicas"]),
            selector: Some(Cow::Borrowed(&["spec", "selector"])),
        })
    }

    fn pod_spec_path(&self) -> Option<&[&str]> {
        Some(TEMPLATE_SPEC)
    }
}
