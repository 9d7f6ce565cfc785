//! Taints, tolerations and node affinity, as the controllers that place or evict pods need them.
//!
//! Pure. Not the scheduler's scoring: only what upstream's controllers decide by themselves.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};
use kedge_meta::{LabelSelector, Operator, Requirement};

use crate::owners::selects;
use crate::pods::name_of;

/// The taints of a node.
pub(crate) fn taints_of(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// Whether a toleration tolerates a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => text(&toleration.value) == text(&taint.value) && !key.is_empty(),
        "Exists" => true,
        "Gt" | "Lt" => {
            let number = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<i64>().ok());
            let (Some(wanted), Some(actual)) = (number(&toleration.value), number(&taint.value)) else { return false };
            if toleration.operator.as_deref() == Some("Gt") { actual > wanted } else { actual < wanted }
        }
        _ => false,
    }
}

/// The first taint with one of the effects that nothing tolerates.
pub(crate) fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    let counts = |taint: &&Taint| effects.contains(&taint.effect.as_str());
    taints.iter().filter(counts).find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// How long a pod may stay on a node with NoExecute taints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    Forever,
    For(Duration),
    No,
}

/// The shortest time that the tolerations of all NoExecute taints give.
pub(crate) fn plan_stay(taints: &[Taint], tolerations: &[Toleration]) -> Stay {
    let mut shortest: Option<u64> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let mut matching = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if matching.peek().is_none() {
            return Stay::No;
        }
        for seconds in matching.filter_map(|toleration| toleration.toleration_seconds) {
            let seconds = u64::try_from(seconds).unwrap_or_default();
            shortest = Some(shortest.map_or(seconds, |shortest| shortest.min(seconds)));
        }
    }
    match shortest {
        None => Stay::Forever,
        Some(0) => Stay::No,
        Some(seconds) => Stay::For(Duration::from_secs(seconds)),
    }
}

/// Whether a node is one that the pod's `nodeSelector` and required affinity allow.
pub(crate) fn node_affinity_allows(spec: &PodSpec, node: &Node) -> bool {
    if let Some(selector) = &spec.node_selector
        && !selects(&LabelSelector::from_map(selector), &node.metadata)
    {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    affinity
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref())
        .is_none_or(|selector| selector_allows(selector, node))
}

/// Terms are alternatives; an empty term allows nothing.
fn selector_allows(selector: &NodeSelector, node: &Node) -> bool {
    let allows = |term: &NodeSelectorTerm| {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let label = |key: &str| node.metadata.labels.as_ref()?.get(key).map(String::as_str);
        let field = |key: &str| (key == "metadata.name").then(|| name_of(&node.metadata));
        !(expressions.is_empty() && fields.is_empty())
            && expressions.iter().all(|expression| requirement(expression).is_some_and(|it| it.matches(label)))
            && fields.iter().all(|expression| requirement(expression).is_some_and(|it| it.matches(field)))
    };
    selector.node_selector_terms.iter().any(allows)
}

fn requirement(expression: &NodeSelectorRequirement) -> Option<Requirement> {
    let operator = match expression.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        _ => return None,
    };
    Some(Requirement { key: expression.key.clone(), operator, values: expression.values.clone().unwrap_or_default() })
}

/// The tolerations of a pod.
pub(crate) fn tolerations_of(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! Taints as tests need them.

    use super::*;

    pub(crate) fn taint(key: &str, effect: &str) -> Taint {
        Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() }
    }

    pub(crate) fn exists(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            toleration_seconds: seconds,
            ..Toleration::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::{exists, taint};
    use super::*;
    use k8s_openapi::api::core::v1::{Affinity, NodeAffinity};
    use std::collections::BTreeMap;

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        let mut wanted = taint("k", "NoSchedule");
        wanted.value = Some("v".to_owned());
        let check = |key: &str, operator: &str, value: &str, effect: &str, expected: bool| {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            let toleration = Toleration {
                key: some(key),
                operator: some(operator),
                value: some(value),
                effect: some(effect),
                ..Toleration::default()
            };
            assert_eq!(tolerates(&toleration, &wanted), expected, "{toleration:?}");
        };
        check("k", "", "v", "", true);
        check("k", "Equal", "other", "", false);
        check("k", "Exists", "", "NoSchedule", true);
        check("k", "Exists", "", "NoExecute", false);
        check("", "Exists", "", "", true);
        check("x", "Exists", "", "", false);
    }

    #[test]
    fn the_shortest_toleration_counts() {
        let check = |tolerations: &[Toleration], expected: Stay| {
            let taints = [taint("a", "NoExecute"), taint("b", "NoExecute"), taint("c", "NoSchedule")];
            assert_eq!(plan_stay(&taints, tolerations), expected);
        };
        check(&[], Stay::No);
        check(&[exists("a", None)], Stay::No);
        check(&[exists("a", None), exists("b", None)], Stay::Forever);
        check(&[exists("a", Some(300)), exists("b", Some(60))], Stay::For(Duration::from_secs(60)));
        check(&[exists("a", Some(0)), exists("b", None)], Stay::No);
        assert_eq!(plan_stay(&[], &[]), Stay::Forever);
    }

    #[test]
    fn affinity_looks_at_labels_and_the_name() {
        let mut node = Node::default();
        node.metadata.name = Some("node-1".to_owned());
        node.metadata.labels = Some(BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]));
        let expression = |key: &str, value: &str| {
            Some(vec![NodeSelectorRequirement {
                key: key.to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![value.to_owned()]),
            }])
        };
        let check = |terms: Vec<NodeSelectorTerm>, expected: bool| {
            let affinity = NodeAffinity {
                required_during_scheduling_ignored_during_execution: Some(NodeSelector { node_selector_terms: terms }),
                ..NodeAffinity::default()
            };
            let affinity = Affinity { node_affinity: Some(affinity), ..Affinity::default() };
            let spec = PodSpec { affinity: Some(affinity), ..PodSpec::default() };
            assert_eq!(node_affinity_allows(&spec, &node), expected);
        };
        let term = |expressions, fields| NodeSelectorTerm { match_expressions: expressions, match_fields: fields };
        check(vec![term(expression("disk", "ssd"), None)], true);
        check(vec![term(expression("disk", "hdd"), None)], false);
        check(vec![term(expression("disk", "hdd"), None), term(None, expression("metadata.name", "node-1"))], true);
        check(vec![term(expression("disk", "ssd"), expression("metadata.name", "node-2"))], false);
        check(vec![term(None, None)], false);
    }
}
