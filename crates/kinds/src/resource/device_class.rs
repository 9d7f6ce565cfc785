//! DeviceClasses.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use super::selectors::selectors;
use super::{NAME_AND_AGE, name_and_age, names};
use crate::formats;
use crate::strategy::{Column, Strategy};
use crate::value::text;
use crate::workload::SPEC;

/// Of deviceclasses.
pub(super) struct DeviceClass;

const MOST_CONFIGURATIONS: usize = 32;

impl Strategy for DeviceClass {
    fn has_generation(&self) -> bool {
        true
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        spec_errors(&object["spec"], None, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        spec_errors(&new["spec"], Some(&old["spec"]), errors);
    }

    fn columns(&self) -> &[Column] {
        NAME_AND_AGE
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        name_and_age(object, now)
    }
}

fn spec_errors(spec: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    selectors(spec, old, &SPEC, errors);
    names::each(spec, "config", &SPEC, MOST_CONFIGURATIONS, errors, names::configuration);
    let extended = text(spec, &["extendedResourceName"]);
    if !extended.is_empty() && !is_extended(extended) {
        let path = SPEC.child("extendedResourceName");
        path.invalid(errors, extended, "must be a valid extended resource name");
    }
}

/// Whether a resource is neither native nor the request of a quota.
fn is_extended(name: &str) -> bool {
    let is_native = !name.contains('/') || name.contains("kubernetes.io/");
    !is_native && !name.starts_with("requests.") && formats::qualified_name(&format!("requests.{name}")).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes_are_checked() {
        let check = |spec: Value, expected: &[&str]| {
            let mut errors = Vec::new();
            DeviceClass.validate_create(&json!({"spec": spec}), &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(json!({}), &[]);
        check(json!({"selectors": [{"cel": {"expression": "true"}}], "extendedResourceName": "example.com/gpu"}), &[]);
        check(json!({"selectors": [{}]}), &["spec.selectors[0].cel: Required value"]);
        check(
            json!({"config": [{}, {"opaque": {"driver": "d.io"}}, {"opaque": {"driver": "d.io", "parameters": {}}}]}),
            &["spec.config[0].opaque: Required value", "spec.config[1].opaque.parameters: Required value"],
        );
        let why = "must be a valid extended resource name";
        check(
            json!({"extendedResourceName": "cpu"}),
            &[&format!("spec.extendedResourceName: Invalid value: \"cpu\": {why}")],
        );
    }
}
