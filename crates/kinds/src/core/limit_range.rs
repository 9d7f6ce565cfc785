//! LimitRanges.

use kedge_meta::{FieldError, Quantity};
use serde_json::Value;

use crate::path::Path;
use crate::strategy::Strategy;
use crate::value::{at, child, entries, fill, is_set, items, items_mut, map, text};

/// Of limitranges.
pub(super) struct LimitRange;

impl Strategy for LimitRange {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        for limit in items_mut(object, &["spec", "limits"]) {
            if text(limit, &["type"]) == "Container" {
                copy_missing(limit, "max", "default");
                copy_missing(limit, "default", "defaultRequest");
                copy_missing(limit, "min", "defaultRequest");
            }
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = Path::root("spec");
        let list = spec.child("limits");
        let limits = items(object, &["spec", "limits"]);
        for (index, limit) in limits.iter().enumerate() {
            let path = list.index(index);
            let kind = text(limit, &["type"]);
            if !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") && !kind.contains('/') {
                let why = "must be a standard limit type or fully qualified";
                path.child("type").invalid(errors, kind, why);
            }
            if limits[..index].iter().any(|earlier| text(earlier, &["type"]) == kind) {
                path.child("type").duplicate(errors, kind);
            }
            limit_errors(limit, kind, &path, errors);
        }
    }
}

fn copy_missing(limit: &mut Value, from: &str, to: &str) {
    let Some(amounts) = map(limit, &[from]).filter(|amounts| !amounts.is_empty()).cloned() else { return };
    if let Some(target) = child(limit, to) {
        amounts.into_iter().for_each(|(resource, amount)| fill(target, &resource, amount));
    }
}

fn limit_errors(limit: &Value, kind: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if kind == "Pod" {
        for field in ["default", "defaultRequest"].iter().filter(|field| is_set(limit, &[field])) {
            path.child(field).forbidden(errors, "may not be specified when `type` is 'Pod'");
        }
    }
    let sized = |field: &str| at(limit, &[field, "storage"]).is_some();
    if kind == "PersistentVolumeClaim" && !sized("min") && !sized("max") {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        path.child("limits").required(errors, why);
    }
    // Each pair: the field whose amount may not be above the other's, how the text names both, where it is reported.
    const ORDER: &[(&str, &str, &str, &str, bool)] = &[
        ("min", "max", "min value", "max value", true),
        ("min", "defaultRequest", "min value", "default request value", false),
        ("defaultRequest", "max", "default request value", "max value", true),
        ("defaultRequest", "default", "default request value", "default limit value", true),
        ("min", "default", "min value", "default value", false),
        ("default", "max", "default value", "max value", true),
    ];
    for (low, high, low_name, high_name, at_low) in ORDER {
        for (resource, amount) in entries(limit, &[low]) {
            let Some(most) = at(limit, &[high, resource]) else { continue };
            if parse(amount) > parse(most) {
                let why = format!("{low_name} {} is greater than {high_name} {}", plain(amount), plain(most));
                let (field, value) = if *at_low { (low, amount) } else { (high, most) };
                path.child(field).key(resource).invalid(errors, value.clone(), &why);
            }
        }
    }
    for (resource, ratio) in entries(limit, &["maxLimitRequestRatio"]) {
        if parse(ratio) < Some(Quantity::from_units(1)) {
            let why = format!("ratio {} is less than 1", plain(ratio));
            path.child("maxLimitRequestRatio").key(resource).invalid(errors, ratio.clone(), &why);
        }
    }
}

fn parse(amount: &Value) -> Option<Quantity> {
    amount.as_str().and_then(|amount| amount.parse().ok())
}

fn plain(amount: &Value) -> &str {
    amount.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn container_limits_get_defaults() {
        let mut object =
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]}});
        LimitRange.default(&mut object);
        let expected = json!({"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"},
            "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1Mi"}});
        assert_eq!(object["spec"]["limits"][0], expected);
        let mut errors = Vec::new();
        let wrong = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}}]}});
        LimitRange.validate_create(&wrong, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"]
        );
    }
}
