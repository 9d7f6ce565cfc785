//! NodeAffinity: `spec.nodeSelector` and `spec.affinity.nodeAffinity`, and what the profile adds to them for all its pods.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    NodeAffinity as Affinity, NodeSelector, NodeSelectorTerm, PodSpec, PreferredSchedulingTerm,
};

use crate::configuration::NodeAffinityArgs;
use crate::event::{Event, other_labels};
use crate::framework::{Cycle, Evaluation, Plugin, Verdict, scale_to_max};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::selectors::{NodeTerm, NodeTerms};

#[derive(Default)]
pub(crate) struct NodeAffinity(NodeAffinityArgs);

impl NodeAffinity {
    pub(crate) fn new(args: NodeAffinityArgs) -> Self {
        Self(args)
    }

    fn wanted<'a>(&'a self, spec: &'a PodSpec) -> Wanted<'a> {
        let added = self.0.added_affinity.as_ref();
        let own = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        Wanted {
            spec,
            named: own.and_then(required).and_then(only_named),
            required: own.and_then(required).map(NodeTerms::new),
            added: added.and_then(required).map(NodeTerms::new),
            preferred: preferred(own).iter().chain(preferred(added)).map(liked).collect(),
        }
    }
}

fn required(affinity: &Affinity) -> Option<&NodeSelector> {
    affinity.required_during_scheduling_ignored_during_execution.as_ref()
}

fn preferred(affinity: Option<&Affinity>) -> &[PreferredSchedulingTerm] {
    let terms = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
    terms.unwrap_or_default()
}

/// How much nodes are liked that a term matches; `None` matches all.
type Liked = (i64, Option<Vec<NodeTerm>>);

fn liked(term: &PreferredSchedulingTerm) -> Liked {
    let preference = &term.preference;
    // An empty preferred term matches every node.
    let empty = preference.match_expressions.is_none() && preference.match_fields.is_none();
    (i64::from(term.weight), (!empty).then(|| NodeTerm::new(preference).into_iter().collect()))
}

struct Wanted<'a> {
    spec: &'a PodSpec,
    /// The only nodes that come into question, where the pod names them.
    named: Option<BTreeSet<String>>,
    required: Option<NodeTerms>,
    added: Option<NodeTerms>,
    preferred: Vec<Liked>,
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let wanted = self.wanted(cycle.pod.pod().spec.as_ref()?);
        let asks = wanted.spec.node_selector.is_some()
            || wanted.required.is_some()
            || wanted.added.is_some()
            || !wanted.preferred.is_empty();
        asks.then(|| Box::new(wanted) as Box<dyn Evaluation + 'a>)
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let Some(spec) = &pod.pod().spec else { return false };
        event.changed_node(other_labels).is_some_and(|node| self.wanted(spec).filter(node).fits())
    }
}

/// The names of nodes that a selector lets in, where each of its terms names some.
fn only_named(selector: &NodeSelector) -> Option<BTreeSet<String>> {
    let terms = Some(&selector.node_selector_terms).filter(|terms| !terms.is_empty())?;
    // One term that names none lets in any.
    let named: Option<Vec<BTreeSet<String>>> = terms.iter().map(named_nodes).collect();
    Some(named?.into_iter().flatten().collect())
}

/// The names of nodes that a term lets in, where it names any.
fn named_nodes(term: &NodeSelectorTerm) -> Option<BTreeSet<String>> {
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let named = fields.iter().filter(|field| field.key == "metadata.name" && field.operator == "In");
    let sets = named.map(|field| field.values.iter().flatten().cloned().collect::<BTreeSet<String>>());
    sets.reduce(|one, other| one.intersection(&other).cloned().collect())
}

impl Evaluation for Wanted<'_> {
    fn only_nodes(&self) -> Option<BTreeSet<String>> {
        self.named.clone()
    }

    fn filter(&self, node: &NodeInfo) -> Verdict {
        if self.added.as_ref().is_some_and(|terms| !terms.match_node(node)) {
            return Verdict::unresolvable("node(s) didn't match scheduler-enforced node affinity");
        }
        let labels = node.labels();
        let selected = self.spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
        match selected && self.required.as_ref().is_none_or(|terms| terms.match_node(node)) {
            true => Verdict::Fits,
            false => Verdict::unresolvable("node(s) didn't match Pod's node affinity/selector"),
        }
    }

    fn score(&self, node: &NodeInfo) -> Option<i64> {
        if self.preferred.is_empty() {
            return None;
        }
        let matches =
            |(_, terms): &&Liked| terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(node)));
        Some(self.preferred.iter().filter(matches).map(|(weight, _)| weight).sum())
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale_to_max(scores, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{filter, node, pod, score};
    use serde_json::{Value, json};

    #[test]
    fn selectors_and_affinity() {
        let nodes = [
            node(json!({"metadata": {"name": "n1", "labels": {"zone": "a", "cores": "4"}}}), vec![]),
            node(json!({"metadata": {"name": "n2", "labels": {"zone": "b", "cores": "8"}}}), vec![]),
        ];
        let required = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        for (spec, fits) in [
            (json!({"nodeSelector": {"zone": "a"}}), [true, false]),
            (
                required(json!([{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]}])),
                [false, true],
            ),
            (
                required(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}])),
                [true, false],
            ),
            (required(json!([{}])), [false, false]),
            (json!({}), [true, true]),
        ] {
            let mut spec = spec;
            spec["containers"] = json!([]);
            let pod = pod(json!({"spec": spec}));
            let verdicts: Vec<bool> =
                filter(&NodeAffinity::default(), &pod, &nodes).iter().map(Verdict::fits).collect();
            assert_eq!(verdicts, fits, "{spec}");
        }
        let preferred = json!([{"weight": 10, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}}]);
        let pod = pod(json!({"spec": {"containers": [], "affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": preferred}}}}));
        assert_eq!(score(&NodeAffinity::default(), &pod, &nodes), [0, 100]);
    }

    #[test]
    fn a_profile_adds_its_own() {
        let nodes = ["a", "b"].map(|zone| node(json!({"metadata": {"name": zone, "labels": {"zone": zone}}}), vec![]));
        let in_b = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]});
        let plugin = |added: Value| NodeAffinity::new(serde_json::from_value(json!({"addedAffinity": added})).unwrap());
        let plain = pod(json!({"spec": {"containers": []}}));
        let hard = plugin(json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [in_b]}}));
        let refusal = Verdict::unresolvable("node(s) didn't match scheduler-enforced node affinity");
        assert_eq!(filter(&hard, &plain, &nodes), [refusal, Verdict::Fits]);
        let soft =
            plugin(json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 3, "preference": in_b}]}));
        assert_eq!(score(&soft, &plain, &nodes), [0, 100]);
    }

    #[test]
    fn nodes_that_now_match_may_help() {
        let selecting = pod(json!({"spec": {"containers": [], "nodeSelector": {"zone": "a"}}}));
        let with = |labels: Value| node(json!({"metadata": {"name": "n", "labels": labels}}), vec![]);
        let (fitting, other) = (with(json!({"zone": "a"})), with(json!({})));
        let plugin = NodeAffinity::default();
        assert!(plugin.may_help(&selecting, &Event::NodeAdd(&fitting)));
        assert!(!plugin.may_help(&selecting, &Event::NodeAdd(&other)));
        assert!(plugin.may_help(&selecting, &Event::NodeUpdate { old: &other.node, new: &fitting }));
        assert!(!plugin.may_help(&selecting, &Event::NodeUpdate { old: &fitting.node, new: &fitting }));
    }
}
