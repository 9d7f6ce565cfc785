//! Label selectors, as objects have them.

use serde_json::Value;

use crate::object::{list, text};

/// Whether a selector agrees to labels; an empty one agrees to all.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let matches = |(key, value): (&String, &Value)| labels[key] == *value;
    selector["matchLabels"].as_object().is_none_or(|wanted| wanted.iter().all(matches))
        && list(&selector["matchExpressions"]).all(|expression| holds(expression, labels))
}

fn holds(expression: &Value, labels: &Value) -> bool {
    let own = &labels[text(&expression["key"])];
    let is_listed = list(&expression["values"]).any(|value| value == own);
    match text(&expression["operator"]) {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => own.is_string(),
        "DoesNotExist" => own.is_null(),
        _ => false,
    }
}
