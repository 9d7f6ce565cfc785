//! ReplicaSets.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use super::deployment::replicas;
use crate::strategy::{Column, ScalePaths, Strategy};
use crate::table::{AGE, NAME, age, column, containers, name, selector, wide};
use crate::value::{at, int};
use crate::workload::{
    SPEC, TEMPLATE_SPEC, default_workload, fill_spec, not_negative, replica_counts, restarting_template_errors,
    selector_errors, template_warnings,
};

/// Of replicasets.
pub(super) struct ReplicaSet;

pub(crate) const COLUMNS: &[Column] = &[
    NAME,
    column("Desired", "integer", "Pods that are wanted"),
    column("Current", "integer", "Pods that there are"),
    column("Ready", "integer", "Pods that are ready"),
    AGE,
    wide("Containers", "string", "Names of the template's containers"),
    wide("Images", "string", "Images of the template's containers"),
    wide("Selector", "string", "Labels of its pods"),
];

impl Strategy for ReplicaSet {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_workload(object, &["replicas"]);
        fill_spec(object, "replicas", 1);
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        not_negative(spec, &["replicas", "minReadySeconds"], &SPEC, errors);
        selector_errors(spec, "replicaset", errors);
        restarting_template_errors(spec, "ReplicaSet", errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        SPEC.child("selector").immutable(errors, at(new, &["spec", "selector"]), at(old, &["spec", "selector"]));
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
            Value::from(selector(object, &["spec", "selector"])),
        ]
    }

    fn fields(&self) -> &[&str] {
        &["status.replicas"]
    }

    fn scale(&self) -> Option<ScalePaths<'_>> {
        Some(replicas())
    }

    fn pod_spec_path(&self) -> Option<&[&str]> {
        Some(TEMPLATE_SPEC)
    }
}
