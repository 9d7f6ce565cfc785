//! NodeAffinity: `spec.nodeSelector` and `spec.affinity.nodeAffinity`.

use k8s_openapi::api::core::v1::{PodSpec, PreferredSchedulingTerm};

use crate::framework::{Cycle, Evaluation, Plugin, Verdict, scale_to_max};
use crate::node_info::NodeInfo;
use crate::selectors::{node_selector_matches, node_term_matches};

pub(crate) struct NodeAffinity;

struct Wanted<'a> {
    spec: &'a PodSpec,
    preferred: &'a [PreferredSchedulingTerm],
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn prepare<'a>(&self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let spec = cycle.pod.pod.spec.as_ref()?;
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        if affinity.is_none() && spec.node_selector.is_none() {
            return None;
        }
        let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
        Some(Box::new(Wanted { spec, preferred: preferred.unwrap_or_default() }))
    }
}

impl Evaluation for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let labels = node.labels();
        let selected = self.spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
        let required = self.spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = required.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        match selected && required.is_none_or(|selector| node_selector_matches(selector, node)) {
            true => Verdict::Fits,
            false => Verdict::Unresolvable("node(s) didn't match Pod's node affinity/selector".to_owned()),
        }
    }

    fn score(&self, node: &NodeInfo) -> Option<i64> {
        if self.preferred.is_empty() {
            return None;
        }
        // An empty preferred term matches every node.
        let matches = |term: &&PreferredSchedulingTerm| {
            let preference = &term.preference;
            let empty = preference.match_expressions.is_none() && preference.match_fields.is_none();
            empty || node_term_matches(preference, node)
        };
        Some(self.preferred.iter().filter(matches).map(|term| i64::from(term.weight)).sum())
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
            let verdicts: Vec<bool> = filter(&NodeAffinity, &pod, &nodes).iter().map(Verdict::fits).collect();
            assert_eq!(verdicts, fits, "{spec}");
        }
        let preferred = json!([{"weight": 10, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}}]);
        let pod = pod(json!({"spec": {"containers": [], "affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": preferred}}}}));
        assert_eq!(score(&NodeAffinity, &pod, &nodes), [0, 100]);
    }
}
