//! `metav1.LabelSelector` in its JSON form.

use kedge_meta::{LabelSelector, Operator, Requirement};
use serde_json::Value;

/// What a selector asks for; an empty or absent one selects everything.
pub fn read_selector(selector: &Value) -> LabelSelector {
    let equals = selector["matchLabels"].as_object().into_iter().flatten().map(|(key, value)| Requirement {
        key: key.clone(),
        operator: Operator::In,
        values: vec![value.as_str().unwrap_or_default().to_owned()],
    });
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten().map(|expression| Requirement {
        key: expression["key"].as_str().unwrap_or_default().to_owned(),
        operator: match expression["operator"].as_str() {
            Some("NotIn") => Operator::NotIn,
            Some("Exists") => Operator::Exists,
            Some("DoesNotExist") => Operator::DoesNotExist,
            _ => Operator::In,
        },
        values: expression["values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    });
    LabelSelector::new(equals.chain(expressions).collect())
}

/// Whether an object's labels are what a selector asks for.
pub(crate) fn selects(selector: &LabelSelector, object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels");
    selector.matches_with(|key| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_select_by_labels() {
        let object = json!({"metadata": {"labels": {"a": "1"}}});
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"a": "1"}}), true),
            (json!({"matchLabels": {"a": "2"}}), false),
            (json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}), true),
            (json!({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}), true),
            (json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}), false),
            (json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}), true),
        ] {
            assert_eq!(selects(&read_selector(&selector), &object), expected, "{selector}");
        }
    }
}
