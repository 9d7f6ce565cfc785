//! The kinds of the policy group: PodDisruptionBudgets. Evictions are bodies of a pod's subresource only.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::generic::Generic;
use crate::pod_spec::label_selector_errors;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, child, fill, int};
use crate::workload::{SPEC, STATUS, at_most_all, int_or_percent, not_negative};

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "poddisruptionbudgets" => &PodDisruptionBudget,
        _ => &Generic::PLAIN,
    }
}

/// Of poddisruptionbudgets.
struct PodDisruptionBudget;

const COUNTS: &[&str] = &["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"];

const COLUMNS: &[Column] = &[
    NAME,
    column("Min Available", "string", "Pods that must stay available"),
    column("Max Unavailable", "string", "Pods that may be unavailable"),
    column("Allowed Disruptions", "integer", "Pods that may be evicted now"),
    AGE,
];

impl Strategy for PodDisruptionBudget {
    fn has_generation(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        if let Some(status) = child(object, "status") {
            COUNTS.iter().for_each(|field| fill(status, field, 0));
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        let (least, most) = (at(spec, &["minAvailable"]), at(spec, &["maxUnavailable"]));
        if least.is_some() && most.is_some() {
            SPEC.invalid(errors, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
        }
        for (field, value) in [("minAvailable", least), ("maxUnavailable", most)] {
            int_or_percent(value, &SPEC.child(field), errors);
            at_most_all(value, &SPEC.child(field), errors);
        }
        if let Some(selector) = at(spec, &["selector"]) {
            label_selector_errors(selector, &SPEC.child("selector"), errors);
        }
        if let Some(policy) = at(spec, &["unhealthyPodEvictionPolicy"]).and_then(Value::as_str) {
            SPEC.child("unhealthyPodEvictionPolicy").one_of(errors, policy, &["AlwaysAllow", "IfHealthyBudget"]);
        }
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        not_negative(&new["status"], COUNTS, &STATUS, errors);
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cell = |field: &str| match at(object, &["spec", field]) {
            None => Value::from("N/A"),
            Some(Value::String(text)) => Value::from(text.as_str()),
            Some(other) => Value::from(other.to_string()),
        };
        let allowed = int(object, &["status", "disruptionsAllowed"]).unwrap_or(0);
        vec![name(object), cell("minAvailable"), cell("maxUnavailable"), Value::from(allowed), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn budgets_say_one_thing() {
        let mut errors = Vec::new();
        let spec = json!({"minAvailable": 1, "maxUnavailable": "150%"});
        PodDisruptionBudget.validate_create(&json!({"spec": spec}), &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].ends_with("minAvailable and maxUnavailable cannot be both set"), "{texts:?}");
        assert_eq!(texts[1], "spec.maxUnavailable: Invalid value: \"150%\": must not be greater than 100%");
        let row = PodDisruptionBudget
            .row(&json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1}}), Timestamp::UNIX_EPOCH);
        assert_eq!(Value::from(row), json!(["b", "1", "N/A", 0, "<unknown>"]));
    }
}
