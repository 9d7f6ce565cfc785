//! PodTopologySpread: pods of a group are spread over the domains of a topology label.
//!
//! A pod without constraints of its own is spread as the profile's defaults say: softly over hosts and zones with the pods
//! of its Services unless they say otherwise.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ApiLabelSelector;
use kedge_client::label_selector;
use kedge_meta::LabelSelector;

use crate::configuration::SpreadArgs;
use crate::event::{Event, other_taints};
use crate::framework::{Cycle, Evaluation, MAX_SCORE, Plugin, Surroundings, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::shape::Shape;
use crate::tallies::{Tally, Topology};
use participation::{Participation, counts_all_nodes};

mod participation;

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// The score of a node that lacks a label, until scores are brought into their range.
const IGNORED: i64 = i64::MIN;

#[derive(Default)]
pub(crate) struct PodTopologySpread(SpreadArgs);

impl PodTopologySpread {
    pub(crate) fn new(args: SpreadArgs) -> Self {
        Self(args)
    }

    /// The constraints that count for a pod without any: upstream's system defaults, or those of the profile.
    fn defaults(&self, selectors: &[BTreeMap<String, String>]) -> Vec<TopologySpreadConstraint> {
        let Some(labels) = selectors.first() else { return Vec::new() };
        let soft = |key: &str, max_skew| TopologySpreadConstraint {
            topology_key: key.to_owned(),
            max_skew,
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            ..TopologySpreadConstraint::default()
        };
        let mut constraints = match self.is_by_system() {
            true => vec![soft(HOST, 3), soft(ZONE, 5)],
            false => self.0.default_constraints.clone(),
        };
        for constraint in &mut constraints {
            let selector = ApiLabelSelector { match_labels: Some(labels.clone()), ..ApiLabelSelector::default() };
            constraint.label_selector = Some(selector);
        }
        constraints
    }

    fn is_by_system(&self) -> bool {
        self.0.defaulting_type == "System"
    }
}

struct Constraint<'a> {
    key: String,
    max_skew: i64,
    hard: bool,
    matches_self: bool,
    selector: Option<LabelSelector>,
    namespace: &'a str,
    /// Pods that are selected, by domain. Empty for hosts that are only scored: their pods are counted when they are.
    counts: HashMap<&'a str, i64>,
    /// What the emptiest domain has; nothing where there are fewer domains than there must be.
    least: i64,
    weight: f64,
}

struct Constraints<'a> {
    all: Vec<Constraint<'a>>,
    needs_all_labels: bool,
}

fn own_constraints(pod: &PodInfo) -> &[TopologySpreadConstraint] {
    let constraints = pod.pod().spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_deref());
    constraints.unwrap_or_default()
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let own = own_constraints(cycle.pod);
        let by_default = match own.is_empty() {
            true => self.defaults(&cycle.surroundings.default_spread_selectors),
            false => Vec::new(),
        };
        let wanted = if own.is_empty() { &by_default } else { own };
        if wanted.is_empty() {
            return None;
        }
        let needs_all_labels = !own.is_empty() || !self.is_by_system();
        let keys = |one: &TopologySpreadConstraint| keys_beside(one, wanted, needs_all_labels);
        let all = wanted.iter().map(|one| count(one, &keys(one), cycle)).collect();
        Some(Box::new(Constraints { all, needs_all_labels }))
    }

    fn topologies(&self, pod: &PodInfo, surroundings: &Surroundings) -> Vec<Topology> {
        let own = own_constraints(pod);
        let by_default = match own.is_empty() {
            true => self.defaults(&surroundings.default_spread_selectors),
            false => Vec::new(),
        };
        let wanted = if own.is_empty() { &by_default } else { own };
        let needs_all_labels = !own.is_empty() || !self.is_by_system();
        let topology = |one: &TopologySpreadConstraint| {
            let with = keys_beside(one, wanted, needs_all_labels).into_iter().map(str::to_owned).collect();
            Topology { key: one.topology_key.clone(), with }
        };
        wanted.iter().filter(|one| counts_all_nodes(one, pod)).map(topology).collect()
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let own = own_constraints(pod);
        // Defaults select by Services and owners, which are not known here.
        let selects = |other: &PodInfo| {
            own.is_empty() || own.iter().any(|one| selector_of(one, pod).is_some_and(|all| all.matches(other.labels())))
        };
        let keys = || own.iter().map(|one| one.topology_key.as_str());
        let has_all = |labels: Option<&BTreeMap<String, String>>| {
            keys().all(|key| labels.is_some_and(|labels| labels.contains_key(key)))
        };
        match event {
            Event::AssignedPodAdd(other) | Event::AssignedPodDelete(other, _) => {
                other.namespace() == pod.namespace() && selects(other)
            }
            Event::AssignedPodUpdate { old, new } => {
                new.namespace() == pod.namespace()
                    && (old.labels() != new.labels() || old.shape.is_terminating != new.shape.is_terminating)
                    && (selects(old) || selects(new))
            }
            Event::NodeAdd(node) => has_all(Some(node.labels())),
            Event::NodeDelete(node) => has_all(node.metadata.labels.as_ref()),
            Event::NodeUpdate { old, new } => {
                let (before, now) = (old.metadata.labels.as_ref(), new.labels());
                let moved = || keys().any(|key| before.and_then(|all| all.get(key)) != now.get(key));
                has_all(before) != has_all(Some(now))
                    || (has_all(Some(now)) && (own.is_empty() || moved() || other_taints(old, &new.node)))
            }
            Event::Object(_) => false,
        }
    }
}

fn is_hard(constraint: &TopologySpreadConstraint) -> bool {
    constraint.when_unsatisfiable == "DoNotSchedule"
}

/// The keys of the constraints that are as hard as this one, where a node counts only if it has all their labels.
fn keys_beside<'a>(
    constraint: &TopologySpreadConstraint,
    all: &'a [TopologySpreadConstraint],
    needs_all_labels: bool,
) -> Vec<&'a str> {
    let alike = all.iter().filter(|one| needs_all_labels && is_hard(one) == is_hard(constraint));
    alike.map(|one| one.topology_key.as_str()).collect()
}

/// What a constraint selects, with the pod's own values of the label keys that must be equal.
fn selector_of(constraint: &TopologySpreadConstraint, pod: &PodInfo) -> Option<LabelSelector> {
    let mut selector = constraint.label_selector.clone()?;
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.labels().get(key) {
            selector.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
    label_selector(Some(&selector))
}

fn count<'a>(constraint: &TopologySpreadConstraint, keys: &[&str], cycle: &Cycle<'a>) -> Constraint<'a> {
    let selector = selector_of(constraint, cycle.pod);
    let hard = is_hard(constraint);
    let mut counted = Constraint {
        key: constraint.topology_key.clone(),
        max_skew: i64::from(constraint.max_skew),
        hard,
        matches_self: selector.as_ref().is_some_and(|selector| selector.matches(cycle.pod.labels())),
        selector,
        namespace: cycle.pod.namespace(),
        counts: HashMap::new(),
        least: 0,
        weight: 0.0,
    };
    let tally = cycle.cache.filter(|_| counts_all_nodes(constraint, cycle.pod));
    let nodes = match tally.and_then(|cache| cache.tallied(&constraint.topology_key, keys)) {
        Some(tally) => counted.take_from(tally),
        None => counted.take_in(constraint, keys, cycle),
    };
    let domains = if counted.is_counted_later() { nodes } else { counted.counts.len() };
    // Few large domains must not outweigh many small ones.
    counted.weight = ((domains + 2) as f64).ln();
    let enough = usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1);
    if hard && domains >= enough {
        counted.least = counted.counts.values().copied().min().unwrap_or_default();
    }
    counted
}

impl<'a> Constraint<'a> {
    /// Whether its pods are counted where a node is scored.
    fn is_counted_later(&self) -> bool {
        !self.hard && self.key == HOST
    }

    /// Takes over what is known of all nodes; how many nodes take part.
    fn take_from(&mut self, tally: &'a Tally) -> usize {
        if self.is_counted_later() {
            return tally.nodes();
        }
        let mut counts: HashMap<&'a str, i64> = tally.domains().map(|domain| (domain, 0)).collect();
        for (_, pods) in tally.shapes().filter(|(shape, _)| self.selects(shape)) {
            for (domain, count) in pods {
                *counts.entry(domain).or_default() += i64::try_from(*count).unwrap_or(i64::MAX);
            }
        }
        self.counts = counts;
        tally.nodes()
    }

    /// Counts node by node; how many nodes take part.
    fn take_in(&mut self, constraint: &TopologySpreadConstraint, keys: &[&str], cycle: &Cycle<'a>) -> usize {
        let participation = Participation::new(constraint, cycle.pod);
        let mut selected: HashMap<*const Shape, bool> = HashMap::new();
        let mut nodes = 0;
        for node in cycle.nodes {
            // A node takes part only where it has all the labels of all constraints and the pod's policies count it.
            let labels = node.labels();
            let Some(domain) = labels.get(&self.key) else { continue };
            if !keys.iter().all(|key| labels.contains_key(*key)) || !participation.includes(node) {
                continue;
            }
            nodes += 1;
            if self.is_counted_later() {
                continue;
            }
            let mut is_selected =
                |shape: &Arc<Shape>| *selected.entry(Arc::as_ptr(shape)).or_insert_with(|| self.selects(shape));
            let here: usize = node.shapes.iter().filter(|(shape, _)| is_selected(shape)).map(|(_, count)| count).sum();
            *self.counts.entry(domain).or_default() += i64::try_from(here).unwrap_or(i64::MAX);
        }
        nodes
    }

    fn selects(&self, shape: &Shape) -> bool {
        shape.namespace == self.namespace
            && !shape.is_terminating
            && self.selector.as_ref().is_some_and(|selector| selector.matches(&shape.labels))
    }

    /// How many pods the node's domain has; `None` where the node is in no domain.
    fn crowd(&self, node: &NodeInfo) -> Option<i64> {
        let domain = node.labels().get(&self.key)?;
        if self.hard || self.key != HOST {
            return Some(self.counts.get(domain.as_str()).copied().unwrap_or_default());
        }
        let here: usize = node.shapes.iter().filter(|(shape, _)| self.selects(shape)).map(|(_, count)| count).sum();
        Some(i64::try_from(here).unwrap_or(i64::MAX))
    }
}

impl Evaluation for Constraints<'_> {
    fn is_local(&self) -> bool {
        !self.all.iter().any(|constraint| constraint.hard)
    }

    fn filter(&self, node: &NodeInfo) -> Verdict {
        for constraint in self.all.iter().filter(|constraint| constraint.hard) {
            let Some(here) = constraint.crowd(node) else {
                return Verdict::unresolvable(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                );
            };
            let skew = here + i64::from(constraint.matches_self) - constraint.least;
            if skew > constraint.max_skew {
                return Verdict::unschedulable("node(s) didn't match pod topology spread constraints");
            }
        }
        Verdict::Fits
    }

    fn score(&self, node: &NodeInfo) -> Option<i64> {
        let mut soft = self.all.iter().filter(|constraint| !constraint.hard).peekable();
        soft.peek()?;
        let mut total = 0.0;
        for constraint in soft {
            match constraint.crowd(node) {
                Some(here) => total += here as f64 * constraint.weight + (constraint.max_skew - 1) as f64,
                None if self.needs_all_labels => return Some(IGNORED),
                None => {}
            }
        }
        Some(total.round() as i64)
    }

    fn normalize(&self, scores: &mut [i64]) {
        let known = || scores.iter().copied().filter(|score| *score != IGNORED);
        let (least, most) = (known().min().unwrap_or_default(), known().max().unwrap_or_default());
        for score in scores {
            *score = match *score {
                IGNORED => 0,
                _ if most == 0 => MAX_SCORE,
                score => MAX_SCORE * (most + least - score) / most,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{filter, filter_in, node, pod, score, score_in};
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
            let verdicts =
                filter(&PodTopologySpread::default(), &web("new", constraint("DoNotSchedule")), &zones(counts));
            assert_eq!(verdicts.iter().map(Verdict::fits).collect::<Vec<_>>(), fits, "{counts:?}");
        }
        let unlabelled = [node(json!({"metadata": {"name": "n"}}), vec![])];
        let verdict =
            filter(&PodTopologySpread::default(), &web("new", constraint("DoNotSchedule")), &unlabelled).remove(0);
        assert!(verdict.reasons()[0].contains("missing required label"));
    }

    #[test]
    fn soft_constraints_like_the_emptier_domain() {
        let scores = score(&PodTopologySpread::default(), &web("new", constraint("ScheduleAnyway")), &zones([3, 0]));
        assert!(scores[1] > scores[0], "{scores:?}");
    }

    #[test]
    fn defaults_are_the_systems_or_the_profiles() {
        let hosts: Vec<NodeInfo> = [("a", 2), ("b", 0)]
            .map(|(name, count)| {
                let pods = (0..count).map(|index| web(&format!("{name}-{index}"), json!([]))).collect();
                node(json!({"metadata": {"name": name, "labels": {HOST: name}}}), pods)
            })
            .into();
        let selectors = vec![BTreeMap::from([("app".to_owned(), "web".to_owned())])];
        let world = crate::framework::Surroundings { default_spread_selectors: selectors, ..Default::default() };
        let by_system = score_in(&PodTopologySpread::default(), &web("new", json!([])), &hosts, &world);
        assert!(by_system[1] > by_system[0], "zones are not needed: {by_system:?}");
        let args = json!({"defaultingType": "List", "defaultConstraints": [
            {"maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "DoNotSchedule"}]});
        let by_list = PodTopologySpread::new(serde_json::from_value(args).unwrap());
        let fits: Vec<bool> =
            filter_in(&by_list, &web("new", json!([])), &hosts, &world).iter().map(Verdict::fits).collect();
        assert_eq!(fits, [false, true]);
    }

    #[test]
    fn only_pods_that_are_counted_may_help() {
        let (plugin, waiting) = (PodTopologySpread::default(), web("new", constraint("DoNotSchedule")));
        let other = pod(json!({"metadata": {"name": "o", "namespace": "d", "labels": {"app": "db"}}}));
        let peer = web("peer", json!([]));
        assert!(plugin.may_help(&waiting, &Event::AssignedPodAdd(&peer)));
        assert!(!plugin.may_help(&waiting, &Event::AssignedPodAdd(&other)));
        let (zoned, bare) = (&zones([0, 0])[0], node(json!({"metadata": {"name": "n"}}), vec![]));
        assert!(plugin.may_help(&waiting, &Event::NodeAdd(zoned)));
        assert!(!plugin.may_help(&waiting, &Event::NodeAdd(&bare)));
    }
}
