//! PodTopologySpread: pods of a group are spread over the domains of a topology label.
//!
//! A pod without constraints of its own is spread softly over hosts and zones with the pods of its Services.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::framework::{Cycle, Evaluation, MAX_SCORE, Plugin, Verdict};
use crate::node_info::{NodeInfo, PodInfo};
use crate::selectors::{label_selector_matches, node_selector_matches, tolerated};

pub(crate) struct PodTopologySpread;

struct Constraint {
    key: String,
    max_skew: i64,
    min_domains: usize,
    hard: bool,
    matches_self: bool,
    counts: HashMap<String, i64>,
}

struct Constraints(Vec<Constraint>);

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn prepare<'a>(&self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let own = cycle.pod.pod.spec.as_ref()?.topology_spread_constraints.clone().unwrap_or_default();
        let wanted = if own.is_empty() { defaults(&cycle.surroundings.default_spread_selectors) } else { own };
        if wanted.is_empty() {
            return None;
        }
        let keys: Vec<&str> = wanted.iter().map(|constraint| constraint.topology_key.as_str()).collect();
        let constraints = wanted.iter().map(|constraint| count(constraint, &keys, cycle)).collect();
        Some(Box::new(Constraints(constraints)))
    }
}

/// Upstream's system defaults: hosts with skew 3 and zones with skew 5, softly.
fn defaults(selectors: &[BTreeMap<String, String>]) -> Vec<TopologySpreadConstraint> {
    let Some(labels) = selectors.first() else { return Vec::new() };
    let soft = |key: &str, max_skew| TopologySpreadConstraint {
        topology_key: key.to_owned(),
        max_skew,
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector { match_labels: Some(labels.clone()), ..LabelSelector::default() }),
        ..TopologySpreadConstraint::default()
    };
    vec![soft("kubernetes.io/hostname", 3), soft("topology.kubernetes.io/zone", 5)]
}

fn count(constraint: &TopologySpreadConstraint, keys: &[&str], cycle: &Cycle<'_>) -> Constraint {
    let selects = |labels: &BTreeMap<String, String>| {
        label_selector_matches(constraint.label_selector.as_ref(), labels)
            && constraint
                .match_label_keys
                .iter()
                .flatten()
                .all(|key| cycle.pod.labels().get(key).is_none_or(|value| labels.get(key) == Some(value)))
    };
    let mut counts: HashMap<String, i64> = HashMap::new();
    for node in cycle.nodes {
        // A node takes part only where it has all the labels of all constraints and the pod's policies count it.
        if !keys.iter().all(|key| node.labels().contains_key(*key)) || !counted(constraint, cycle.pod, node) {
            continue;
        }
        let Some(domain) = node.labels().get(&constraint.topology_key) else { continue };
        let matching = node.pods.values().filter(|pod| {
            pod.namespace() == cycle.pod.namespace()
                && pod.pod.metadata.deletion_timestamp.is_none()
                && selects(pod.labels())
        });
        *counts.entry(domain.clone()).or_default() += i64::try_from(matching.count()).unwrap_or(i64::MAX);
    }
    Constraint {
        key: constraint.topology_key.clone(),
        max_skew: i64::from(constraint.max_skew),
        min_domains: usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1),
        hard: constraint.when_unsatisfiable == "DoNotSchedule",
        matches_self: selects(cycle.pod.labels()),
        counts,
    }
}

/// Whether a node counts for the skew: by default nodes that the pod's selector or affinity excludes do not.
fn counted(constraint: &TopologySpreadConstraint, pod: &PodInfo, node: &NodeInfo) -> bool {
    let Some(spec) = &pod.pod.spec else { return true };
    if constraint.node_affinity_policy.as_deref() != Some("Ignore") {
        let labels = node.labels();
        let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
        let required = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = required.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        if !selected || !required.is_none_or(|selector| node_selector_matches(selector, node)) {
            return false;
        }
    }
    if constraint.node_taints_policy.as_deref() == Some("Honor") {
        let taints = node.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let tolerations = spec.tolerations.as_deref().unwrap_or_default();
        let hard = taints.iter().filter(|taint| taint.effect != "PreferNoSchedule");
        return hard.into_iter().all(|taint| tolerated(taint, tolerations));
    }
    true
}

impl Constraint {
    fn least(&self) -> i64 {
        match self.counts.len() < self.min_domains {
            true => 0,
            false => self.counts.values().copied().min().unwrap_or_default(),
        }
    }
}

impl Evaluation for Constraints {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        for constraint in self.0.iter().filter(|constraint| constraint.hard) {
            let Some(domain) = node.labels().get(&constraint.key) else {
                return Verdict::Unresolvable(
                    "node(s) didn't match pod topology spread constraints (missing required label)".to_owned(),
                );
            };
            let here = constraint.counts.get(domain).copied().unwrap_or_default();
            let skew = here + i64::from(constraint.matches_self) - constraint.least();
            if skew > constraint.max_skew {
                return Verdict::unschedulable("node(s) didn't match pod topology spread constraints");
            }
        }
        Verdict::Fits
    }

    fn score(&self, node: &NodeInfo) -> Option<i64> {
        let mut soft = self.0.iter().filter(|constraint| !constraint.hard).peekable();
        soft.peek()?;
        let crowd = |constraint: &Constraint| {
            let domain = node.labels().get(&constraint.key)?;
            let here = constraint.counts.get(domain).copied().unwrap_or_default();
            // Few large domains must not outweigh many small ones.
            let weight = ((constraint.counts.len() + 2) as f64).ln();
            Some((here as f64 * weight) as i64 + constraint.max_skew - 1)
        };
        Some(soft.filter_map(crowd).sum())
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (least, most) = (scores.iter().min().copied(), scores.iter().max().copied());
        let (least, most) = (least.unwrap_or_default(), most.unwrap_or_default());
        for score in scores {
            *score = if most == 0 { MAX_SCORE } else { MAX_SCORE * (most + least - *score) / most };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{filter, node, pod, score};
    use serde_json::{Value, json};

    fn web(name: &str, constraints: Value) -> PodInfo {
        pod(json!({"metadata": {"name": name, "namespace": "d", "labels": {"app": "web"}},
            "spec": {"containers": [], "topologySpreadConstraints": constraints}}))
    }

    fn zones(counts: [usize; 2]) -> Vec<NodeInfo> {
        let zone = |name: &str, count: usize| {
            let pods = (0..count).map(|index| web(&format!("{name}-{index}"), json!([]))).collect();
            node(json!({"metadata": {"name": name, "labels": {"zone": name}}}), pods)
        };
        vec![zone("a", counts[0]), zone("b", counts[1])]
    }

    fn constraint(when: &str) -> Value {
        json!([{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": "web"}}}])
    }

    #[test]
    fn hard_constraints_bound_the_skew() {
        for (counts, fits) in [([0, 0], [true, true]), ([1, 0], [false, true]), ([1, 1], [true, true])] {
            let verdicts = filter(&PodTopologySpread, &web("new", constraint("DoNotSchedule")), &zones(counts));
            assert_eq!(verdicts.iter().map(Verdict::fits).collect::<Vec<_>>(), fits, "{counts:?}");
        }
        let unlabelled = [node(json!({"metadata": {"name": "n"}}), vec![])];
        let verdict = filter(&PodTopologySpread, &web("new", constraint("DoNotSchedule")), &unlabelled).remove(0);
        assert!(verdict.reasons()[0].contains("missing required label"));
    }

    #[test]
    fn soft_constraints_like_the_emptier_domain() {
        let scores = score(&PodTopologySpread, &web("new", constraint("ScheduleAnyway")), &zones([3, 0]));
        assert!(scores[1] > scores[0], "{scores:?}");
    }
}
