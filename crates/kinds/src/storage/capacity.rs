//! CSIStorageCapacities: what they are about never changes, how much there is does.

use jiff::Timestamp;
use kedge_meta::{FieldError, Quantity};
use serde_json::Value;

use crate::formats;
use crate::path::{NEGATIVE, Path};
use crate::pod_spec::label_selector_errors;
use crate::strategy::{Column, Strategy};
use crate::table::{NAME, column, name};
use crate::value::{at, text};

/// Of csistoragecapacities.
pub(super) struct CsiStorageCapacity;

const COLUMNS: &[Column] = &[
    NAME,
    column("StorageClassName", "string", "Class that the capacity is of"),
    column("Capacity", "string", "Bytes that are left"),
];

impl Strategy for CsiStorageCapacity {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        if let Some(topology) = at(object, &["nodeTopology"]) {
            label_selector_errors(topology, &Path::root("nodeTopology"), errors);
        }
        let class = text(object, &["storageClassName"]);
        Path::root("storageClassName").check(errors, class, formats::subdomain(class));
        // Upstream looks at no maximumVolumeSize.
        let amount = text(object, &["capacity"]);
        if amount.parse::<Quantity>().is_ok_and(|parsed| parsed < Quantity::ZERO) {
            Path::root("capacity").invalid(errors, amount, NEGATIVE);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        for field in ["nodeTopology", "storageClassName"] {
            Path::root(field).immutable(errors, at(new, &[field]), at(old, &[field]));
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let capacity = match text(object, &["capacity"]) {
            "" => "<unset>",
            capacity => capacity,
        };
        vec![name(object), Value::from(text(object, &["storageClassName"])), Value::from(capacity)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn capacities_are_of_one_class_in_one_place() {
        let old =
            json!({"storageClassName": "fast", "capacity": "1Gi", "nodeTopology": {"matchLabels": {"zone": "a"}}});
        let check = |change: Value, expected: &[&str]| {
            let mut new = old.clone();
            new.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let mut errors = Vec::new();
            CsiStorageCapacity.validate_update(&new, &old, &mut errors);
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert!(texts.len() == expected.len(), "{texts:?}");
            assert!(texts.iter().zip(expected).all(|(text, start)| text.starts_with(start)), "{texts:?}");
        };
        check(json!({"capacity": "2Gi", "maximumVolumeSize": "1Gi"}), &[]);
        check(json!({"capacity": "-1"}), &["capacity: Invalid value: \"-1\": must be greater than or equal to 0"]);
        check(json!({"storageClassName": "slow"}), &["storageClassName: Invalid value: \"slow\": field is immutable"]);
        check(json!({"nodeTopology": {}}), &["nodeTopology: Invalid value: {}: field is immutable"]);
    }
}
