//! One scheduling decision: filter nodes until enough fit, score those, choose the best.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::alike::Known;
use crate::framework::{Cycle, Evaluation, Verdict};
use crate::memory::Refusal;
use crate::node_info::NodeInfo;
use crate::profile::Profile;
use crate::queue::Refusers;

/// Fewer nodes than these are never enough.
const LEAST_SAMPLE: usize = 100;

/// Why no node fits.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Failure {
    /// How many nodes there are.
    pub(crate) total: usize,
    /// The verdicts about nodes that were looked at, by their place in the cycle.
    pub(crate) verdicts: Vec<(usize, Verdict)>,
    /// The plugins that refused a node.
    pub(crate) refused_by: Refusers,
    /// Why no node was even looked at.
    pub(crate) refusal: Option<String>,
    /// Why some nodes were not looked at.
    pub(crate) absent: Option<String>,
}

/// The nodes that fit, by their place in the cycle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fitting {
    pub(crate) nodes: Vec<usize>,
    /// After how many nodes there were enough.
    pub(crate) looked_at: usize,
    /// What was said about those that do not fit.
    pub(crate) failure: Failure,
}

/// A plugin's evaluation of this cycle, with its name and the weight of its score.
pub(crate) struct Prepared<'a> {
    pub(crate) name: &'static str,
    pub(crate) filters: bool,
    weight: i64,
    pub(crate) evaluation: Box<dyn Evaluation + 'a>,
}

/// Where to begin, and how many fitting nodes are enough.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) start: usize,
    pub(crate) enough: usize,
}

impl Sample {
    /// So many nodes as upstream looks for: all of a small cluster, a falling share of a large one where no percentage is
    /// set, and never fewer than 100.
    pub(crate) fn of(nodes: usize, percentage: u8, start: usize) -> Self {
        let share = match percentage {
            0 => 50usize.saturating_sub(nodes / 125).max(5),
            percentage => usize::from(percentage),
        };
        let enough = if nodes < LEAST_SAMPLE { nodes } else { (nodes * share / 100).max(LEAST_SAMPLE) };
        Self { start: start % nodes.max(1), enough }
    }
}

impl Failure {
    /// Upstream's sentence: `0/3 nodes are available: 1 Insufficient memory, 2 Insufficient cpu.`
    pub(crate) fn message(&self) -> String {
        let total = self.total;
        if total == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        if let Some(refusal) = &self.refusal {
            return format!("0/{total} nodes are available: {refusal}.");
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.verdicts.iter().flat_map(|(_, verdict)| verdict.reasons()) {
            *counts.entry(reason).or_default() += 1;
        }
        if let Some(absent) = &self.absent {
            *counts.entry(absent).or_default() += total - self.verdicts.len();
        }
        let mut parts: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        format!("0/{total} nodes are available: {}.", parts.join(", "))
    }

    /// On how many nodes it would be of no use that other pods went away.
    pub(crate) fn unresolvable(&self) -> usize {
        let helped = |(_, verdict): &&(usize, Verdict)| matches!(verdict, Verdict::Unschedulable(_));
        self.total - self.verdicts.iter().filter(helped).count()
    }
}

impl Prepared<'_> {
    /// Whether its score counts.
    pub(crate) fn scores(&self) -> bool {
        self.weight > 0
    }
}

/// What the profile's plugins prepare for a cycle.
pub(crate) fn prepare<'a>(cycle: &Cycle<'a>, profile: &'a Profile) -> Vec<Prepared<'a>> {
    let evaluations = profile.plugins.iter().filter_map(|entry| {
        let evaluation = entry.plugin.prepare(cycle)?;
        Some(Prepared { name: entry.plugin.name(), filters: entry.filters, weight: entry.weight, evaluation })
    });
    evaluations.collect()
}

/// Filters nodes from a start on until enough fit; `seen` is a node as it must be seen where that is not as it is.
pub(crate) fn find_fitting(
    cycle: &Cycle<'_>,
    prepared: &[Prepared<'_>],
    sample: Sample,
    seen: &dyn Fn(&Arc<NodeInfo>) -> Option<Arc<NodeInfo>>,
) -> Fitting {
    find_judged(cycle, prepared, sample, &mut |_, node| refusal(prepared, seen(node).as_ref().unwrap_or(node)))
}

/// The same, with the judgement about a node at a place from outside: who refuses it, and why.
pub(crate) fn find_judged(
    cycle: &Cycle<'_>,
    prepared: &[Prepared<'_>],
    sample: Sample,
    judge: &mut dyn FnMut(usize, &Arc<NodeInfo>) -> Option<Refusal>,
) -> Fitting {
    let total = cycle.nodes.len();
    let mut found = Fitting { nodes: Vec::new(), looked_at: 0, failure: Failure { total, ..Failure::default() } };
    let mut refusals = prepared.iter().filter(|plugin| plugin.filters);
    if let Some((plugin, refusal)) = refusals.find_map(|plugin| Some((plugin.name, plugin.evaluation.refusal()?))) {
        found.failure.refused_by.insert(plugin);
        found.failure.refusal = Some(refusal);
        return found;
    }
    let only = only_nodes(prepared, &mut found.failure);
    for step in steps(cycle, only.as_ref(), sample.start) {
        if found.nodes.len() >= sample.enough.max(1) {
            return found;
        }
        found.looked_at = step + 1;
        let at = (sample.start + step) % total;
        let node = &cycle.nodes[at];
        if only.as_ref().is_some_and(|only| !only.contains(&node.name)) {
            continue;
        }
        match judge(at, node) {
            None => found.nodes.push(at),
            Some((plugin, verdict)) => {
                found.failure.verdicts.push((at, verdict));
                found.failure.refused_by.insert(plugin);
            }
        }
    }
    if found.nodes.len() < sample.enough.max(1) {
        found.looked_at = total;
    }
    found
}

/// How far from the start the nodes are that have to be looked at: all, or only those that come into question.
fn steps<'a>(cycle: &Cycle<'a>, only: Option<&BTreeSet<String>>, start: usize) -> Box<dyn Iterator<Item = usize> + 'a> {
    let total = cycle.nodes.len();
    let (Some(only), Some(cache)) = (only, cycle.cache) else { return Box::new(0..total) };
    let places = only.iter().filter_map(|name| cache.place_of(name));
    let mut steps: Vec<usize> = places.map(|at| (at + total - start) % total).collect();
    steps.sort_unstable();
    Box::new(steps.into_iter())
}

/// The only nodes that come into question, where plugins say so; those who do are noted as refusing all others.
fn only_nodes(prepared: &[Prepared<'_>], failure: &mut Failure) -> Option<BTreeSet<String>> {
    let mut only: Option<BTreeSet<String>> = None;
    let mut names = BTreeSet::new();
    for plugin in prepared.iter().filter(|plugin| plugin.filters) {
        let Some(nodes) = plugin.evaluation.only_nodes() else { continue };
        names.insert(plugin.name);
        only = Some(match only {
            Some(before) => before.intersection(&nodes).cloned().collect(),
            None => nodes,
        });
    }
    if only.is_some() {
        failure.refused_by.extend(names.iter());
        let names: Vec<&str> = names.into_iter().collect();
        failure.absent = Some(format!("node(s) didn't satisfy plugin(s) [{}]", names.join(" ")));
    }
    only
}

/// Whether the words of all plugins that filter depend on one node alone.
pub(crate) fn is_local(prepared: &[Prepared<'_>]) -> bool {
    prepared.iter().filter(|plugin| plugin.filters).all(|plugin| plugin.evaluation.is_local())
}

/// Whether the pod fits this very node.
pub(crate) fn fits(prepared: &[Prepared<'_>], node: &NodeInfo) -> bool {
    let comes_into_question = |plugin: &Prepared<'_>| {
        plugin.evaluation.refusal().is_none()
            && plugin.evaluation.only_nodes().is_none_or(|only| only.contains(&node.name))
    };
    prepared.iter().filter(|plugin| plugin.filters).all(comes_into_question) && refusal(prepared, node).is_none()
}

/// Whether the pod fits a node of the cycle that is as it is in `node` now: other pods are on it than in the cycle.
pub(crate) fn fits_changed(
    cycle: &Cycle<'_>,
    prepared: &[Prepared<'_>],
    profile: &Profile,
    at: usize,
    node: &Arc<NodeInfo>,
) -> bool {
    let filters = || prepared.iter().filter(|plugin| plugin.filters);
    let local = filters().filter(|plugin| plugin.evaluation.is_local());
    if local.into_iter().any(|plugin| plugin.evaluation.refusal().is_some() || !plugin.evaluation.filter(node).fits()) {
        return false;
    }
    if is_local(prepared) {
        return true;
    }
    let mut nodes = cycle.nodes.to_vec();
    nodes[at] = node.clone();
    let changed = Cycle { nodes: &nodes, cache: None, ..*cycle };
    let asked = profile.plugins.iter().filter(|entry| {
        entry.filters && filters().any(|plugin| plugin.name == entry.plugin.name() && !plugin.evaluation.is_local())
    });
    asked
        .filter_map(|entry| entry.plugin.prepare(&changed))
        .all(|evaluation| evaluation.refusal().is_none() && evaluation.filter(node).fits())
}

/// The first plugin that refuses a node, with its verdict.
pub(crate) fn refusal(prepared: &[Prepared<'_>], node: &NodeInfo) -> Option<Refusal> {
    let filters = prepared.iter().filter(|plugin| plugin.filters);
    let mut verdicts = filters.map(|plugin| (plugin.name, plugin.evaluation.filter(node)));
    verdicts.find(|(_, verdict)| !verdict.fits())
}

/// The weighed scores of nodes, with what is known of them for pods like this one.
pub(crate) fn score(
    cycle: &Cycle<'_>,
    prepared: &[Prepared<'_>],
    nodes: &[usize],
    mut known: Option<&mut Known>,
) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    for (at, Prepared { weight, evaluation, .. }) in prepared.iter().enumerate().filter(|(_, plugin)| plugin.scores()) {
        let remembered = known.as_deref_mut().and_then(|known| known.scores(cycle, prepared, at, nodes));
        let scores: Option<Vec<i64>> = match remembered {
            Some(remembered) => remembered.into_iter().collect(),
            None => nodes.iter().map(|at| evaluation.score(&cycle.nodes[*at])).collect(),
        };
        let Some(mut scores) = scores else { continue };
        evaluation.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    }
    totals
}

/// The place of one of the highest scores; `tie_break` picks among `n` equal ones.
pub(crate) fn best(totals: &[i64], tie_break: impl Fn(usize) -> usize) -> usize {
    let most = totals.iter().copied().max().unwrap_or_default();
    let mut tied = (0..totals.len()).filter(|index| totals[*index] == most);
    let count = totals.iter().filter(|total| **total == most).count();
    tied.nth(tie_break(count.max(1))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::framework::Surroundings;
    use crate::plugins::test_world::{node, pod};
    use serde_json::json;

    #[test]
    fn a_part_of_a_large_cluster_is_enough() {
        for (nodes, percentage, enough) in [
            (10, 0, 10),
            (99, 5, 99),
            (100, 0, 100),
            (1000, 0, 420),
            (5000, 0, 500),
            (15_000, 0, 750),
            (5000, 30, 1500),
        ] {
            assert_eq!(Sample::of(nodes, percentage, 7).enough, enough, "{nodes} at {percentage}");
        }
        assert_eq!(Sample::of(5, 0, 7).start, 2);
    }

    #[test]
    fn pods_that_name_their_node_are_tried_there_only() {
        let nodes: Vec<Arc<NodeInfo>> = ["n1", "n2", "n3"]
            .map(|name| Arc::new(node(json!({"metadata": {"name": name}, "status": {"allocatable": {}}}), vec![])))
            .into();
        let mut cache = Cache::default();
        nodes.iter().for_each(|node| cache.set_node(node.node.clone()));
        cache.settle();
        let named = |name: &str| {
            let field = json!({"key": "metadata.name", "operator": "In", "values": [name]});
            pod(json!({"spec": {"containers": [], "affinity": {"nodeAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution":
                    {"nodeSelectorTerms": [{"matchFields": [field]}]}}}}}))
        };
        let (profile, surroundings) = (Profile::default(), Surroundings::default());
        let message = |name: &str| {
            let pod = named(name);
            let cycle = Cycle { pod: &pod, nodes: &nodes, surroundings: &surroundings, cache: None };
            let find =
                |cycle: &Cycle<'_>| find_fitting(cycle, &prepare(cycle, &profile), Sample::of(3, 0, 1), &|_| None);
            let found = find(&cycle);
            assert_eq!(find(&Cycle { nodes: cache.nodes(), cache: Some(&cache), ..cycle }), found, "by their places");
            found.failure.message()
        };
        let others = "node(s) didn't satisfy plugin(s) [NodeAffinity]";
        assert_eq!(message("n2"), format!("0/3 nodes are available: 1 Too many pods, 2 {others}."));
        assert_eq!(message("n9"), format!("0/3 nodes are available: 3 {others}."));
    }

    #[test]
    fn it_goes_round_and_stops_when_there_are_enough() {
        let nodes: Vec<Arc<NodeInfo>> = (0..6)
            .map(|number| {
                let allocatable = json!({"allocatable": {"pods": if number == 5 { "0" } else { "9" }}});
                Arc::new(node(json!({"metadata": {"name": format!("n{number}")}, "status": allocatable}), vec![]))
            })
            .collect();
        let (profile, surroundings) = (Profile::default(), Surroundings::default());
        let plain = pod(json!({"spec": {"containers": []}}));
        let cycle = Cycle { pod: &plain, nodes: &nodes, surroundings: &surroundings, cache: None };
        let found = find_fitting(&cycle, &prepare(&cycle, &profile), Sample { start: 4, enough: 3 }, &|_| None);
        assert_eq!((found.nodes, found.looked_at), (vec![4, 0, 1], 4));
        assert_eq!(best(&[1, 5, 5, 2], |ties| ties - 1), 2);
    }
}
