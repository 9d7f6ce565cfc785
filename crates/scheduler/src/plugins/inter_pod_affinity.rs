//! InterPodAffinity: near to, or away from, other pods of the same topology domain.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm};

use crate::framework::{Cycle, Evaluation, MAX_SCORE, Plugin, Surroundings, Verdict};
use crate::node_info::{NodeInfo, PodInfo};
use crate::selectors::label_selector_matches;

pub(crate) struct InterPodAffinity;

/// Key and value of a topology label.
type Domain = (String, String);

struct State<'a> {
    pod: &'a PodInfo,
    surroundings: &'a Surroundings,
    affinity: Vec<&'a PodAffinityTerm>,
    anti_affinity: Vec<&'a PodAffinityTerm>,
    affinity_domains: HashMap<Domain, usize>,
    anti_affinity_domains: HashMap<Domain, usize>,
    /// Domains from which the anti-affinity of pods that run already keeps this pod away.
    refused_domains: HashMap<Domain, usize>,
    preferences: HashMap<Domain, i64>,
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn prepare<'a>(&self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let (pod, surroundings) = (cycle.pod, cycle.surroundings);
        let mut state = State {
            pod,
            surroundings,
            affinity: required_affinity(pod),
            anti_affinity: required_anti_affinity(pod),
            affinity_domains: HashMap::new(),
            anti_affinity_domains: HashMap::new(),
            refused_domains: HashMap::new(),
            preferences: HashMap::new(),
        };
        for node in cycle.nodes {
            for existing in node.pods.values() {
                state.take_in(node, existing);
            }
        }
        let idle = state.affinity.is_empty()
            && state.anti_affinity.is_empty()
            && state.refused_domains.is_empty()
            && state.preferences.is_empty();
        (!idle).then(|| Box::new(state) as Box<dyn Evaluation + 'a>)
    }
}

impl State<'_> {
    fn take_in(&mut self, node: &NodeInfo, existing: &PodInfo) {
        let labels = node.labels();
        if !self.affinity.is_empty()
            && self.affinity.iter().all(|term| selects(term, self.pod, existing, self.surroundings))
        {
            for term in &self.affinity {
                count(&mut self.affinity_domains, labels, &term.topology_key, 1);
            }
        }
        for term in &self.anti_affinity {
            if selects(term, self.pod, existing, self.surroundings) {
                count(&mut self.anti_affinity_domains, labels, &term.topology_key, 1);
            }
        }
        for term in required_anti_affinity(existing) {
            if selects(term, existing, self.pod, self.surroundings) {
                count(&mut self.refused_domains, labels, &term.topology_key, 1);
            }
        }
        self.weigh(labels, existing);
    }

    /// Preferences of this pod about the existing one, and of the existing one about this pod.
    fn weigh(&mut self, labels: &BTreeMap<String, String>, existing: &PodInfo) {
        for (own, other) in [(self.pod, existing), (existing, self.pod)] {
            for (term, weight) in preferred(own) {
                if selects(term, own, other, self.surroundings) {
                    count(&mut self.preferences, labels, &term.topology_key, weight);
                }
            }
        }
        // Hard affinity of the existing pod counts as a preference too (upstream's hardPodAffinityWeight 1).
        for term in required_affinity(existing) {
            if selects(term, existing, self.pod, self.surroundings) {
                count(&mut self.preferences, labels, &term.topology_key, 1);
            }
        }
    }

    /// The first pod of a group that wants to be together has nobody to join: it may go anywhere.
    fn is_first_of_its_kind(&self) -> bool {
        self.affinity_domains.is_empty()
            && self.affinity.iter().all(|term| selects(term, self.pod, self.pod, self.surroundings))
    }
}

impl Evaluation for State<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let labels = node.labels();
        let domain =
            |term: &PodAffinityTerm| Some((term.topology_key.clone(), labels.get(&term.topology_key)?.clone()));
        let joined = self.affinity.iter().all(|term| {
            domain(term)
                .is_some_and(|domain| self.affinity_domains.contains_key(&domain) || self.is_first_of_its_kind())
        });
        if !joined {
            return Verdict::Unresolvable("node(s) didn't match pod affinity rules".to_owned());
        }
        let disturbed = |term: &&PodAffinityTerm| {
            domain(term).is_some_and(|domain| self.anti_affinity_domains.contains_key(&domain))
        };
        if self.anti_affinity.iter().any(disturbed) {
            return Verdict::unschedulable("node(s) didn't match pod anti-affinity rules");
        }
        let refused = self.refused_domains.keys().any(|(key, value)| labels.get(key) == Some(value));
        match refused {
            true => Verdict::unschedulable("node(s) didn't satisfy existing pods anti-affinity rules"),
            false => Verdict::Fits,
        }
    }

    fn score(&self, node: &NodeInfo) -> Option<i64> {
        if self.preferences.is_empty() {
            return None;
        }
        let labels = node.labels();
        let here = self.preferences.iter().filter(|((key, value), _)| labels.get(key) == Some(value));
        Some(here.map(|(_, weight)| *weight).sum())
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (least, most) = (scores.iter().min().copied(), scores.iter().max().copied());
        let (least, most) = (least.unwrap_or_default(), most.unwrap_or_default());
        for score in scores {
            *score = if most == least { 0 } else { (*score - least) * MAX_SCORE / (most - least) };
        }
    }
}

fn count<N: std::ops::AddAssign + Default>(
    domains: &mut HashMap<Domain, N>,
    labels: &BTreeMap<String, String>,
    key: &str,
    by: N,
) {
    if let Some(value) = labels.get(key) {
        *domains.entry((key.to_owned(), value.clone())).or_default() += by;
    }
}

fn affinity(pod: &PodInfo) -> Option<&Affinity> {
    pod.pod.spec.as_ref()?.affinity.as_ref()
}

fn required_affinity(pod: &PodInfo) -> Vec<&PodAffinityTerm> {
    let affinity = affinity(pod).and_then(|affinity| affinity.pod_affinity.as_ref());
    affinity
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .flatten()
        .collect()
}

fn required_anti_affinity(pod: &PodInfo) -> Vec<&PodAffinityTerm> {
    let affinity = affinity(pod).and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    affinity
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .flatten()
        .collect()
}

/// Preferred terms with their weights; those of anti-affinity weigh against.
fn preferred(pod: &PodInfo) -> Vec<(&PodAffinityTerm, i64)> {
    let Some(affinity) = affinity(pod) else { return Vec::new() };
    let near = affinity.pod_affinity.as_ref();
    let near = near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let away = affinity.pod_anti_affinity.as_ref();
    let away = away.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let near = near.into_iter().flatten().map(|term| (&term.pod_affinity_term, i64::from(term.weight)));
    let away = away.into_iter().flatten().map(|term| (&term.pod_affinity_term, -i64::from(term.weight)));
    near.chain(away).collect()
}

/// Whether a term of `owner` selects `candidate`: namespace, labels, and the label keys that must be equal or differ.
fn selects(term: &PodAffinityTerm, owner: &PodInfo, candidate: &PodInfo, surroundings: &Surroundings) -> bool {
    in_namespaces(term, owner, candidate, surroundings)
        && label_selector_matches(term.label_selector.as_ref(), candidate.labels())
        && term
            .match_label_keys
            .iter()
            .flatten()
            .all(|key| owner.labels().get(key).is_none_or(|value| candidate.labels().get(key) == Some(value)))
        && term
            .mismatch_label_keys
            .iter()
            .flatten()
            .all(|key| owner.labels().get(key).is_none_or(|value| candidate.labels().get(key) != Some(value)))
}

fn in_namespaces(term: &PodAffinityTerm, owner: &PodInfo, candidate: &PodInfo, surroundings: &Surroundings) -> bool {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    let named = term.namespaces.as_deref().unwrap_or_default();
    if named.is_empty() && term.namespace_selector.is_none() {
        return owner.namespace() == candidate.namespace();
    }
    let labels = surroundings.namespace_labels.get(candidate.namespace()).unwrap_or(&NONE);
    named.iter().any(|name| name == candidate.namespace())
        || (term.namespace_selector.is_some() && label_selector_matches(term.namespace_selector.as_ref(), labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{filter, node, pod, score};
    use serde_json::{Value, json};

    fn labelled(name: &str, app: &str, affinity: Value) -> PodInfo {
        pod(json!({"metadata": {"name": name, "namespace": "d", "labels": {"app": app}},
            "spec": {"containers": [], "affinity": affinity}}))
    }

    fn term(app: &str) -> Value {
        json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}})
    }

    fn zones(first: Vec<PodInfo>, second: Vec<PodInfo>) -> [NodeInfo; 2] {
        [
            node(json!({"metadata": {"name": "n1", "labels": {"zone": "a"}}}), first),
            node(json!({"metadata": {"name": "n2", "labels": {"zone": "b"}}}), second),
        ]
    }

    #[test]
    fn near_and_away() {
        let near = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("db")]}});
        let away = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("web")]}});
        let check = |pod: &PodInfo, nodes: &[NodeInfo]| -> Vec<bool> {
            filter(&InterPodAffinity, pod, nodes).iter().map(Verdict::fits).collect()
        };
        let with_db = zones(vec![labelled("db", "db", json!({}))], vec![]);
        assert_eq!(check(&labelled("web", "web", near.clone()), &with_db), [true, false]);
        let empty = zones(vec![], vec![]);
        assert_eq!(check(&labelled("web", "web", near.clone()), &empty), [false, false], "nobody to join");
        assert_eq!(check(&labelled("db", "db", near), &empty), [true, true], "the first of its kind");
        let with_web = zones(vec![labelled("web-0", "web", away.clone())], vec![]);
        assert_eq!(check(&labelled("web-1", "web", away), &with_web), [false, true]);
        assert_eq!(check(&labelled("web-1", "web", json!({})), &with_web), [false, true], "the other one refuses");
        assert_eq!(check(&labelled("db", "db", json!({})), &with_web), [true, true]);
    }

    #[test]
    fn preferences_count() {
        let soft = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 5, "podAffinityTerm": term("web")}]}});
        let nodes = zones(vec![labelled("web-0", "web", json!({}))], vec![]);
        assert_eq!(score(&InterPodAffinity, &labelled("web-1", "web", soft), &nodes), [0, 100]);
    }
}
