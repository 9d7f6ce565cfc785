//! Selectors of the API as selectors that can be asked.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ApiSelector;
use kedge_meta::{LabelSelector, Operator, Requirement};

/// A label selector of the API as one that can be asked; `None` where it is absent or says something impossible, which
/// selects nothing.
pub fn label_selector(selector: Option<&ApiSelector>) -> Option<LabelSelector> {
    let selector = selector?;
    let mut requirements = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        requirements.push(Requirement { key: key.clone(), operator: Operator::In, values: vec![value.clone()] });
    }
    for expression in selector.match_expressions.iter().flatten() {
        let operator = match expression.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => return None,
        };
        requirements.push(Requirement {
            key: expression.key.clone(),
            operator,
            values: expression.values.clone().unwrap_or_default(),
        });
    }
    Some(LabelSelector::new(requirements))
}
