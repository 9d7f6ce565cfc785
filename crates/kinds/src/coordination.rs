//! The kinds of `coordination.k8s.io`.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::generic::{Generic, Printed};
use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{int, text};

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "leases" => &Lease,
        "leasecandidates" => &Printed { generic: Generic::PLAIN, columns: CANDIDATE_COLUMNS, row: candidate_row },
        _ => &Generic::PLAIN,
    }
}

const CANDIDATE_COLUMNS: &[Column] = &[
    NAME,
    column("LeaseName", "string", "Lease that it wants"),
    column("BinaryVersion", "string", "Version of its binary"),
    column("EmulationVersion", "string", "Version that it behaves like"),
    AGE,
];

fn candidate_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let cell = |field: &str| Value::from(text(object, &["spec", field]));
    vec![name(object), cell("leaseName"), cell("binaryVersion"), cell("emulationVersion"), age(object, now)]
}

/// Of leases.
struct Lease;

const COLUMNS: &[Column] = &[NAME, column("Holder", "string", "Who holds the lease"), AGE];

impl Strategy for Lease {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = Path::root("spec");
        if let Some(seconds) = int(object, &["spec", "leaseDurationSeconds"]).filter(|seconds| *seconds <= 0) {
            spec.child("leaseDurationSeconds").invalid(errors, seconds, "must be greater than 0");
        }
        if let Some(transitions) = int(object, &["spec", "leaseTransitions"]) {
            spec.child("leaseTransitions").not_negative(errors, transitions);
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), Value::from(text(object, &["spec", "holderIdentity"])), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn leases_last_longer_than_nothing() {
        let mut errors = Vec::new();
        Lease.validate_create(&json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}), &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
    }
}
