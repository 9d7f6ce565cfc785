//! How much of a capacity requests may take of a device that several share.

use std::collections::BTreeSet;

use kedge_meta::{FieldError, Quantity};
use serde_json::Value;

use crate::path::Path;
use crate::value::{at, is_set, items};

const MOST_VALUES: usize = 10;

/// An amount, and how it was written.
#[derive(Clone, Copy)]
struct Amount<'a> {
    text: &'a str,
    value: Quantity,
}

impl<'a> Amount<'a> {
    /// What cannot be read counts as nothing: that it can be is checked elsewhere.
    fn of(text: &'a str) -> Self {
        Self { text, value: text.parse().unwrap_or_default() }
    }

    fn at(object: &'a Value, field: &str) -> Option<Self> {
        at(object, &[field]).and_then(Value::as_str).map(Self::of)
    }
}

/// What is wrong with the policy of a capacity of which there is `most`.
pub(super) fn policy_errors(policy: &Value, most: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (values, range) = (is_set(policy, &["validValues"]), at(policy, &["validRange"]));
    let (default, most) = (Amount::at(policy, "default"), Amount::of(most));
    match (values, range) {
        (true, Some(_)) => {
            let why = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same \
                       time";
            path.forbidden(errors, why);
        }
        (true, None) => match default {
            None => path.child("default").required(errors, "required when validValues is defined"),
            Some(default) => {
                values_errors(items(policy, &["validValues"]), default, most, &path.child("validValues"), errors);
            }
        },
        (false, Some(range)) => match default {
            None => path.child("default").required(errors, "required when validRange is defined"),
            Some(default) => range_errors(range, default, most, &path.child("validRange"), errors),
        },
        (false, None) => {}
    }
}

fn values_errors(
    values: &[Value],
    default: Amount<'_>,
    most: Amount<'_>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let values: Vec<Amount<'_>> = values.iter().map(|value| Amount::of(value.as_str().unwrap_or_default())).collect();
    for (index, pair) in values.windows(2).enumerate().filter(|(_, pair)| pair[0].value > pair[1].value) {
        path.index(index + 1).invalid(errors, pair[1].text, "values must be sorted in ascending order");
    }
    if values.len() > MOST_VALUES {
        path.too_many(errors, values.len(), MOST_VALUES);
    }
    let mut seen = BTreeSet::new();
    for (index, Amount { text, value }) in values.iter().enumerate() {
        let path = path.index(index);
        if *value > most.value {
            path.invalid(errors, *text, &format!("option is larger than capacity value: {}", most.text));
        }
        if !seen.insert(*value) {
            path.duplicate(errors, *text);
        }
    }
    if !seen.contains(&default.value) {
        path.invalid(errors, default.text, "default value is not valid according to the requestPolicy");
    }
}

fn range_errors(range: &Value, default: Amount<'_>, most: Amount<'_>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(min) = Amount::at(range, "min") else {
        return path.child("min").required(errors, "required when validRange is defined");
    };
    let mut check = |wrong: bool, field: &str, amount: Amount<'_>, why: String| {
        if wrong {
            path.child(field).invalid(errors, amount.text, &why);
        }
    };
    let beyond = |what: &str| format!("{what} is larger than capacity value: {}", most.text);
    check(min.value > most.value, "min", min, beyond("min"));
    check(default.value < min.value, "min", default, format!("default is less than min: {}", min.text));
    let max = Amount::at(range, "max");
    if let Some(max) = max {
        check(min.value > max.value, "max", min, format!("min is larger than max: {}", max.text));
        check(max.value > most.value, "max", max, beyond("max"));
        check(default.value > max.value, "max", default, format!("default is more than max: {}", max.text));
    }
    let Some(step) = Amount::at(range, "step") else { return };
    let next = min.value + step.value;
    check(next > most.value, "step", step, beyond(&format!("one step {next}")));
    for amount in [Some(default), max].into_iter().flatten() {
        let why = format!("value is not a multiple of a given step ({}) from ({})", step.text, min.text);
        check(!is_multiple(amount.value.units() - min.value.units(), step.value.units()), "step", amount, why);
    }
}

/// Nothing is a multiple of no step at all, but no step itself.
fn is_multiple(distance: i64, step: i64) -> bool {
    distance == 0 || distance.checked_rem(step) == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies_fit_their_capacity() {
        let check = |policy: Value, expected: &[&str]| {
            let mut errors = Vec::new();
            policy_errors(&policy, "10Gi", &Path::root("p"), &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{policy}");
        };
        check(json!({"default": "1Gi"}), &[]);
        check(json!({"default": "1Gi", "validValues": ["1Gi", "2Gi"]}), &[]);
        check(json!({"default": "1Gi", "validRange": {"min": "1Gi", "max": "9Gi", "step": "2Gi"}}), &[]);
        check(
            json!({"default": "1Gi", "validValues": ["1Gi"], "validRange": {"min": "1Gi"}}),
            &[
                "p: Forbidden: exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at \
               the same time",
            ],
        );
        check(json!({"validValues": ["1Gi"]}), &["p.default: Required value: required when validValues is defined"]);
        check(
            json!({"default": "3Gi", "validValues": ["2Gi", "1Gi", "1Gi", "11Gi"]}),
            &[
                "p.validValues[1]: Invalid value: \"1Gi\": values must be sorted in ascending order",
                "p.validValues[2]: Duplicate value: \"1Gi\"",
                "p.validValues[3]: Invalid value: \"11Gi\": option is larger than capacity value: 10Gi",
                "p.validValues: Invalid value: \"3Gi\": default value is not valid according to the requestPolicy",
            ],
        );
        check(
            json!({"default": "1Gi", "validRange": {}}),
            &["p.validRange.min: Required value: required when validRange is defined"],
        );
        check(
            json!({"default": "1Gi", "validRange": {"min": "2Gi", "max": "11Gi", "step": "2Gi"}}),
            &[
                "p.validRange.min: Invalid value: \"1Gi\": default is less than min: 2Gi",
                "p.validRange.max: Invalid value: \"11Gi\": max is larger than capacity value: 10Gi",
                "p.validRange.step: Invalid value: \"1Gi\": value is not a multiple of a given step (2Gi) from (2Gi)",
                "p.validRange.step: Invalid value: \"11Gi\": value is not a multiple of a given step (2Gi) from (2Gi)",
            ],
        );
        check(json!({"default": "1", "validRange": {"min": "1", "step": "0"}}), &[]);
    }
}
