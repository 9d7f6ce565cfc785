//! Selectors of the API as they are asked here: label selectors, node selectors, tolerations.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ApiLabelSelector;
use kedge_client::label_selector;
use kedge_meta::{Operator, Requirement};

use crate::node_info::NodeInfo;

/// Whether labels meet a `metav1.LabelSelector`; an absent one selects nothing, an empty one everything.
pub(crate) fn label_selector_matches(selector: Option<&ApiLabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    label_selector(selector).is_some_and(|selector| selector.matches(labels))
}

/// Whether a node meets a node selector: one of its terms.
pub(crate) fn node_selector_matches(selector: &NodeSelector, node: &NodeInfo) -> bool {
    NodeTerms::new(selector).match_node(node)
}

/// The terms of a node selector, read once for many nodes. Terms that say nothing match nothing.
pub(crate) struct NodeTerms(Vec<NodeTerm>);

impl NodeTerms {
    pub(crate) fn new(selector: &NodeSelector) -> Self {
        Self(selector.node_selector_terms.iter().filter_map(NodeTerm::new).collect())
    }

    /// Whether a node meets one of them.
    pub(crate) fn match_node(&self, node: &NodeInfo) -> bool {
        self.0.iter().any(|term| term.matches(node))
    }
}

/// One term.
pub(crate) struct NodeTerm {
    expressions: Vec<Requirement>,
    fields: Vec<Requirement>,
}

impl NodeTerm {
    /// `None` where it matches nothing.
    pub(crate) fn new(term: &NodeSelectorTerm) -> Option<Self> {
        let read = |requirements: Option<&[NodeSelectorRequirement]>| -> Option<Vec<Requirement>> {
            requirements.unwrap_or_default().iter().map(node_requirement).collect()
        };
        let (expressions, fields) = (read(term.match_expressions.as_deref())?, read(term.match_fields.as_deref())?);
        (!expressions.is_empty() || !fields.is_empty()).then_some(Self { expressions, fields })
    }

    /// Whether a node meets it.
    pub(crate) fn matches(&self, node: &NodeInfo) -> bool {
        let labels = node.labels();
        let by_label = |key: &str| labels.get(key).map(String::as_str);
        let by_field = |key: &str| (key == "metadata.name").then_some(node.name.as_str());
        self.expressions.iter().all(|requirement| requirement.matches(by_label))
            && self.fields.iter().all(|requirement| requirement.matches(by_field))
    }
}

fn node_requirement(requirement: &NodeSelectorRequirement) -> Option<Requirement> {
    let operator = match requirement.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        _ => return None,
    };
    Some(Requirement { key: requirement.key.clone(), operator, values: requirement.values.clone().unwrap_or_default() })
}

/// Whether one of the tolerations accepts a taint.
pub(crate) fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let key = toleration.key.as_deref().unwrap_or_default();
        let value = toleration.value.as_deref().unwrap_or_default();
        let taint_value = taint.value.as_deref().unwrap_or_default();
        if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
            return false;
        }
        let numbers = || Some((taint_value.parse::<i64>().ok()?, value.parse::<i64>().ok()?));
        match toleration.operator.as_deref().unwrap_or("Equal") {
            "Exists" => true,
            "" | "Equal" => !key.is_empty() && value == taint_value,
            "Gt" => numbers().is_some_and(|(taint, wanted)| taint > wanted),
            "Lt" => numbers().is_some_and(|(taint, wanted)| taint < wanted),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tolerations_accept_taints() {
        let taint: Taint = serde_json::from_value(json!({"key": "a", "value": "b", "effect": "NoSchedule"})).unwrap();
        for (toleration, accepted) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "a", "operator": "Exists"}), true),
            (json!({"key": "a", "value": "b"}), true),
            (json!({"key": "a", "value": "c"}), false),
            (json!({"key": "a", "value": "b", "effect": "NoExecute"}), false),
            (json!({"key": "a", "value": "b", "effect": "NoSchedule"}), true),
            (json!({"key": "x", "operator": "Exists"}), false),
            (json!({}), false),
        ] {
            let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerated(&taint, &[parsed]), accepted, "{toleration}");
        }
    }

    #[test]
    fn label_selectors_of_the_api() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let parse = |value| serde_json::from_value::<ApiLabelSelector>(value).unwrap();
        assert!(!label_selector_matches(None, &labels));
        assert!(label_selector_matches(Some(&parse(json!({}))), &labels));
        assert!(label_selector_matches(Some(&parse(json!({"matchLabels": {"a": "1"}}))), &labels));
        let not_in = json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]});
        assert!(!label_selector_matches(Some(&parse(not_in)), &labels));
    }
}
