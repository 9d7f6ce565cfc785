//! InterPodAffinity: near to, or away from, other pods of the same topology domain.
//!
//! Pods are looked at by their shapes: what a shape means for the pod is found out once, and then only counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm};

use crate::cache::{Cache, topology_keys};
use crate::configuration::InterPodAffinityArgs;
use crate::event::Event;
use crate::framework::{Cycle, Evaluation, MAX_SCORE, Plugin, Surroundings, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::selectors::label_selector_matches;
use crate::shape::Shape;
use crate::tallies::{PodsByDomain, Topology};
use domains::{Domains, Preferences};

mod domains;

#[derive(Default)]
pub(crate) struct InterPodAffinity(InterPodAffinityArgs);

impl InterPodAffinity {
    pub(crate) fn new(args: InterPodAffinityArgs) -> Self {
        Self(args)
    }
}

/// What pods of a shape mean for the pod.
#[derive(Default)]
struct Meaning<'a> {
    /// They are all that its affinity looks for.
    joins: bool,
    /// The topology keys within which it must not meet them.
    disturbs: Vec<&'a str>,
    /// The topology keys within which they must not meet it.
    refuses: Vec<&'a str>,
    /// How much it is liked near them.
    prefers: Vec<(&'a str, i64)>,
}

impl Meaning<'_> {
    fn is_empty(&self) -> bool {
        !self.joins && self.disturbs.is_empty() && self.refuses.is_empty() && self.prefers.is_empty()
    }
}

struct State<'a> {
    pod: &'a PodInfo,
    surroundings: &'a Surroundings,
    affinity: Vec<&'a PodAffinityTerm>,
    anti_affinity: Vec<&'a PodAffinityTerm>,
    preferred: Vec<(&'a PodAffinityTerm, i64)>,
    affinity_domains: Domains<'a>,
    anti_affinity_domains: Domains<'a>,
    /// Domains from which the anti-affinity of pods that run already keeps this pod away.
    refused_domains: Domains<'a>,
    preferences: Preferences<'a>,
    is_first_of_its_kind: bool,
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let pod = cycle.pod;
        if pod.shape.affinity.is_none() && !cycle.surroundings.has_affine_pods {
            return None;
        }
        let mut state = State {
            pod,
            surroundings: cycle.surroundings,
            affinity: required_affinity(&pod.shape),
            anti_affinity: required_anti_affinity(&pod.shape),
            preferred: preferred(&pod.shape),
            affinity_domains: Domains::default(),
            anti_affinity_domains: Domains::default(),
            refused_domains: Domains::default(),
            preferences: Preferences::default(),
            is_first_of_its_kind: false,
        };
        if !cycle.cache.is_some_and(|cache| state.take_from(cache, &self.0)) {
            state.take_in_all(cycle.nodes, &self.0);
        }
        // The first pod of a group that wants to be together has nobody to join: it may go anywhere.
        state.is_first_of_its_kind = state.affinity_domains.is_empty()
            && state.affinity.iter().all(|term| selects(term, &pod.shape, &pod.shape, cycle.surroundings));
        let idle = state.affinity.is_empty()
            && state.anti_affinity.is_empty()
            && state.refused_domains.is_empty()
            && state.preferences.is_empty();
        (!idle).then(|| Box::new(state) as Box<dyn Evaluation + 'a>)
    }

    fn topologies(&self, pod: &PodInfo, _surroundings: &Surroundings) -> Vec<Topology> {
        pod.shape.affinity.iter().flat_map(topology_keys).map(Topology::of).collect()
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let (near, away) = (required_affinity(&pod.shape), required_anti_affinity(&pod.shape));
        // Namespaces that are selected by labels are not known here; the pod is rather tried once more.
        let wide = |term: &&PodAffinityTerm| term.namespace_selector.is_some();
        let unknown = near.iter().chain(&away).copied().any(|term| wide(&term));
        let surroundings = Surroundings::default();
        let all = |terms: &[&PodAffinityTerm], other: &PodInfo| {
            !terms.is_empty() && terms.iter().all(|term| selects(term, &pod.shape, &other.shape, &surroundings))
        };
        let keeps_away = |other: &PodInfo| !required_anti_affinity(&other.shape).is_empty();
        match event {
            Event::AssignedPodAdd(other) => !near.is_empty() && (unknown || all(&near, other)),
            Event::AssignedPodDelete(other, _) => {
                keeps_away(other) || (!away.is_empty() && (unknown || any(&away, pod, other, &surroundings)))
            }
            Event::AssignedPodUpdate { old, new } => {
                unknown
                    || keeps_away(old)
                    || (!all(&near, old) && all(&near, new))
                    || (any(&away, pod, old, &surroundings) && !any(&away, pod, new, &surroundings))
            }
            Event::NodeAdd(_) => true,
            Event::NodeUpdate { old, new } => {
                let before = old.metadata.labels.as_ref();
                let moved = |key: &str| before.and_then(|all| all.get(key)) != new.labels().get(key);
                // The keys of those who keep this pod away are not known here.
                (near.is_empty() && away.is_empty()) || near.iter().chain(&away).any(|term| moved(&term.topology_key))
            }
            Event::NodeDelete(_) | Event::Object(_) => false,
        }
    }
}

fn any(terms: &[&PodAffinityTerm], pod: &PodInfo, other: &PodInfo, surroundings: &Surroundings) -> bool {
    terms.iter().any(|term| selects(term, &pod.shape, &other.shape, surroundings))
}

impl<'a> State<'a> {
    /// Takes over what is known of all nodes together; `false` where not everything is.
    fn take_from(&mut self, cache: &'a Cache, args: &InterPodAffinityArgs) -> bool {
        let own = self.pod.shape.affinity.iter().flat_map(topology_keys);
        let keys: BTreeSet<&str> = own.chain(cache.affine_keys()).collect();
        let tallies: Option<Vec<_>> = keys.iter().map(|key| Some((*key, cache.tallied(key, &[])?))).collect();
        let Some(tallies) = tallies else { return false };
        let asks = self.pod.shape.affinity.is_some();
        let mut meanings: HashMap<*const Shape, Meaning<'a>> = HashMap::new();
        for (_, tally) in &tallies {
            for (shape, pods) in tally.shapes().filter(|(shape, _)| asks || shape.affinity.is_some()) {
                let known = meanings.entry(std::sync::Arc::as_ptr(shape));
                let meaning = known.or_insert_with(|| self.meaning(shape, args));
                tally_in(meaning, tally.key(), pods, self);
            }
        }
        true
    }

    fn take_in_all(&mut self, nodes: &'a [std::sync::Arc<NodeInfo>], args: &InterPodAffinityArgs) {
        let mut meanings: HashMap<*const Shape, Meaning<'a>> = HashMap::new();
        let asks = self.pod.shape.affinity.is_some();
        for node in nodes {
            for (shape, count) in &node.shapes {
                if !asks && shape.affinity.is_none() {
                    continue;
                }
                if let Some(meaning) = meanings.get(&std::sync::Arc::as_ptr(shape)) {
                    if !meaning.is_empty() {
                        let count = i64::try_from(*count).unwrap_or(i64::MAX);
                        let labels = node.labels();
                        count_in(meaning, labels, count, self);
                    }
                    continue;
                }
                let meaning = self.meaning(shape, args);
                count_in(&meaning, node.labels(), i64::try_from(*count).unwrap_or(i64::MAX), self);
                meanings.insert(std::sync::Arc::as_ptr(shape), meaning);
            }
        }
    }

    fn meaning(&self, other: &'a Shape, args: &InterPodAffinityArgs) -> Meaning<'a> {
        let own: &Shape = &self.pod.shape;
        let mut meaning = Meaning {
            joins: !self.affinity.is_empty() && self.affinity.iter().all(|term| self.selects(term, own, other)),
            ..Meaning::default()
        };
        let disturbs = self.anti_affinity.iter().filter(|term| self.selects(term, own, other));
        meaning.disturbs = disturbs.map(|term| term.topology_key.as_str()).collect();
        let refuses = required_anti_affinity(other).into_iter().filter(|term| self.selects(term, other, own));
        meaning.refuses = refuses.map(|term| term.topology_key.as_str()).collect();
        let likes = self.preferred.iter().filter(|(term, _)| self.selects(term, own, other));
        meaning.prefers = likes.map(|(term, weight)| (term.topology_key.as_str(), *weight)).collect();
        // Where nobody asks this pod, others are not asked either, if that is wished.
        if !args.ignore_preferred_terms_of_existing_pods || !self.preferred.is_empty() {
            let liked = preferred(other).into_iter().filter(|(term, _)| self.selects(term, other, own));
            meaning.prefers.extend(liked.map(|(term, weight)| (term.topology_key.as_str(), weight)));
            let hard = i64::from(args.hard_pod_affinity_weight);
            let bound = required_affinity(other).into_iter().filter(|term| hard > 0 && self.selects(term, other, own));
            meaning.prefers.extend(bound.map(|term| (term.topology_key.as_str(), hard)));
        }
        meaning
    }

    fn selects(&self, term: &PodAffinityTerm, owner: &Shape, candidate: &Shape) -> bool {
        selects(term, owner, candidate, self.surroundings)
    }
}

/// Counts pods of one meaning on a node with these labels.
fn count_in<'a>(meaning: &Meaning<'a>, labels: &'a BTreeMap<String, String>, count: i64, state: &mut State<'a>) {
    let domain = |key: &'a str| Some((key, labels.get(key)?.as_str()));
    if meaning.joins {
        let domains = state.affinity.iter().filter_map(|term| domain(&term.topology_key));
        domains.for_each(|domain| state.affinity_domains.add(domain));
    }
    meaning.disturbs.iter().filter_map(|key| domain(key)).for_each(|domain| state.anti_affinity_domains.add(domain));
    meaning.refuses.iter().filter_map(|key| domain(key)).for_each(|domain| state.refused_domains.add(domain));
    for (key, weight) in &meaning.prefers {
        if let Some(domain) = domain(key) {
            state.preferences.add(domain, weight * count);
        }
    }
}

/// Takes over where all pods of one meaning are, as far as they mean something in the domains of a key.
fn tally_in<'a>(meaning: &Meaning<'a>, key: &'a str, pods: &'a PodsByDomain, state: &mut State<'a>) {
    if meaning.joins && state.affinity.iter().any(|term| term.topology_key == key) {
        state.affinity_domains.add_all(key, pods);
    }
    if meaning.disturbs.contains(&key) {
        state.anti_affinity_domains.add_all(key, pods);
    }
    if meaning.refuses.contains(&key) {
        state.refused_domains.add_all(key, pods);
    }
    let weight: i64 = meaning.prefers.iter().filter(|(own, _)| *own == key).map(|(_, weight)| weight).sum();
    if meaning.prefers.iter().any(|(own, _)| *own == key) {
        state.preferences.add_all(key, weight, pods);
    }
}

impl Evaluation for State<'_> {
    fn is_local(&self) -> bool {
        false
    }

    fn filter(&self, node: &NodeInfo) -> Verdict {
        let labels = node.labels();
        let value = |key: &str| labels.get(key).map(String::as_str);
        let joined = self.affinity.iter().all(|term| {
            let key = term.topology_key.as_str();
            value(key).is_some_and(|value| self.is_first_of_its_kind || self.affinity_domains.contain((key, value)))
        });
        if !joined {
            return Verdict::unresolvable("node(s) didn't match pod affinity rules");
        }
        let disturbed = |term: &&PodAffinityTerm| {
            let key = term.topology_key.as_str();
            value(key).is_some_and(|value| self.anti_affinity_domains.contain((key, value)))
        };
        if self.anti_affinity.iter().any(disturbed) {
            return Verdict::unschedulable("node(s) didn't match pod anti-affinity rules");
        }
        match self.refused_domains.contain_one_of(labels) {
            true => Verdict::unschedulable("node(s) didn't satisfy existing pods anti-affinity rules"),
            false => Verdict::Fits,
        }
    }

    fn score(&self, node: &NodeInfo) -> Option<i64> {
        if self.preferences.is_empty() {
            return None;
        }
        Some(self.preferences.of(node.labels()))
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (least, most) = (scores.iter().min().copied(), scores.iter().max().copied());
        let (least, most) = (least.unwrap_or_default(), most.unwrap_or_default());
        for score in scores {
            *score = if most == least { 0 } else { (*score - least) * MAX_SCORE / (most - least) };
        }
    }
}

fn required_affinity(shape: &Shape) -> Vec<&PodAffinityTerm> {
    let affinity = shape.affinity.as_ref().and_then(|affinity| affinity.pod_affinity.as_ref());
    let terms = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    terms.into_iter().flatten().collect()
}

fn required_anti_affinity(shape: &Shape) -> Vec<&PodAffinityTerm> {
    let affinity = shape.affinity.as_ref().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let terms = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    terms.into_iter().flatten().collect()
}

/// Preferred terms with their weights; those of anti-affinity weigh against.
fn preferred(shape: &Shape) -> Vec<(&PodAffinityTerm, i64)> {
    let Some(Affinity { pod_affinity: near, pod_anti_affinity: away, .. }) = &shape.affinity else { return Vec::new() };
    let near = near.as_ref().and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let away = away.as_ref().and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let near = near.into_iter().flatten().map(|term| (&term.pod_affinity_term, i64::from(term.weight)));
    let away = away.into_iter().flatten().map(|term| (&term.pod_affinity_term, -i64::from(term.weight)));
    near.chain(away).collect()
}

/// Whether a term of `owner` selects `candidate`: namespace, labels, and the label keys that must be equal or differ.
fn selects(term: &PodAffinityTerm, owner: &Shape, candidate: &Shape, surroundings: &Surroundings) -> bool {
    let equal = |key: &String| owner.labels.get(key).is_none_or(|value| candidate.labels.get(key) == Some(value));
    let other = |key: &String| owner.labels.get(key).is_none_or(|value| candidate.labels.get(key) != Some(value));
    in_namespaces(term, owner, candidate, surroundings)
        && label_selector_matches(term.label_selector.as_ref(), &candidate.labels)
        && term.match_label_keys.iter().flatten().all(equal)
        && term.mismatch_label_keys.iter().flatten().all(other)
}

fn in_namespaces(term: &PodAffinityTerm, owner: &Shape, candidate: &Shape, surroundings: &Surroundings) -> bool {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    let named = term.namespaces.as_deref().unwrap_or_default();
    if named.is_empty() && term.namespace_selector.is_none() {
        return owner.namespace == candidate.namespace;
    }
    let labels = surroundings.namespace_labels.get(&candidate.namespace).unwrap_or(&NONE);
    named.contains(&candidate.namespace)
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
            filter(&InterPodAffinity::default(), pod, nodes).iter().map(Verdict::fits).collect()
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
        assert_eq!(score(&InterPodAffinity::default(), &labelled("web-1", "web", soft), &nodes), [0, 100]);
    }

    #[test]
    fn what_others_prefer_counts_as_the_profile_says() {
        let near = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("web")]}});
        let nodes = zones(vec![labelled("db", "db", near)], vec![]);
        let plain = labelled("web", "web", json!({}));
        let with = |args: Value| InterPodAffinity::new(serde_json::from_value(args).unwrap());
        assert_eq!(score(&with(json!({})), &plain, &nodes), [100, 0]);
        assert_eq!(score(&with(json!({"hardPodAffinityWeight": 0})), &plain, &nodes), [0; 0]);
        assert_eq!(score(&with(json!({"ignorePreferredTermsOfExistingPods": true})), &plain, &nodes), [0; 0]);
    }

    #[test]
    fn neighbours_that_come_and_go_may_help() {
        let near = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("db")]}});
        let away = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("web")]}});
        let (joins, leaves) = (labelled("a", "web", near), labelled("b", "web", away));
        let (db, web) = (labelled("db", "db", json!({})), labelled("web", "web", json!({})));
        for (pod, other, comes, goes) in [
            (&joins, &db, true, false),
            (&joins, &web, false, false),
            (&leaves, &web, false, true),
            (&leaves, &db, false, false),
        ] {
            let plugin = InterPodAffinity::default();
            assert_eq!(plugin.may_help(pod, &Event::AssignedPodAdd(other)), comes, "{} {}", pod.key, other.key);
            assert_eq!(plugin.may_help(pod, &Event::AssignedPodDelete(other, None)), goes, "{} {}", pod.key, other.key);
        }
    }
}
