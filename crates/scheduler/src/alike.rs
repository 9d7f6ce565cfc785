//! Pods that are alike share what was found out about nodes: what a plugin that looks at one node alone says of it holds
//! for every pod that is like the first one, until the node changes.
//!
//! What pods that fit nowhere were told, with the promises that nodes are under, is in `memory.rs`. Invariant: what is
//! remembered is what the plugins would say now. A node is known by its version ([`NodeInfo::version`]), which no other
//! state of any node shares.

use std::collections::{BTreeMap, VecDeque};

use crate::cycle::Prepared;
use crate::framework::{Cycle, Verdict};
use crate::likeness::Likeness;
use crate::memory::Refusal;
use crate::node_info::NodeInfo;
use crate::plugins::image_names;
use crate::pod_info::PodInfo;
use crate::resources::Resources;

/// For so many sorts of pods it is remembered what nodes are like.
const MOST: usize = 4;
/// Of so many sorts it is remembered that there was one, so that the second pod of a sort is the first to remember for.
const MOST_SEEN: usize = 16;

/// What is known of nodes for the latest sorts of pods.
#[derive(Default)]
pub(crate) struct Alike {
    known: VecDeque<Known>,
    seen: VecDeque<Sort>,
}

/// All that plugins that look at one node alone may ask of a pod, and of what is around it.
#[derive(Debug, Clone, PartialEq)]
struct Sort {
    likeness: Likeness,
    score_requests: Resources,
    images: Vec<String>,
    image_spread: BTreeMap<String, usize>,
    nodes: usize,
}

/// What is known of nodes for pods of one sort.
pub(crate) struct Known {
    sort: Sort,
    /// The plugins that look at one node alone, by their places among those that are prepared.
    local: Vec<usize>,
    nodes: Vec<OfNode>,
    /// For each node, what those of the local plugins that score say of it.
    scores: Vec<Option<i64>>,
    scorers: usize,
}

/// What is known of the node at one place, with the versions of it in which that was found out.
#[derive(Clone, Default)]
struct OfNode {
    filtered: u64,
    scored: u64,
    /// The place of the first local plugin that refuses the node, and its verdict.
    refusal: Option<(usize, Verdict)>,
}

impl Sort {
    /// `None` for pods that are like no other, or that name their nodes.
    fn of(cycle: &Cycle<'_>, likeness: &Likeness) -> Option<Self> {
        let is_one = likeness.is_shared() && cycle.surroundings.claims.is_empty() && !names_nodes(cycle.pod);
        is_one.then(|| Self {
            likeness: likeness.clone(),
            score_requests: cycle.pod.score_requests.clone(),
            images: image_names(cycle.pod),
            image_spread: cycle.surroundings.image_spread.clone(),
            nodes: cycle.nodes.len(),
        })
    }
}

/// Whether nodes are wanted by their names, as a DaemonSet's pods want theirs: hardly two pods are alike then.
fn names_nodes(pod: &PodInfo) -> bool {
    let affinity = pod.pod().spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_some_and(|required| required.node_selector_terms.iter().any(|term| term.match_fields.is_some()))
}

impl Alike {
    /// What is known for pods like the one of a cycle, where it is worth while to remember it.
    pub(crate) fn known(
        &mut self,
        cycle: &Cycle<'_>,
        likeness: &Likeness,
        prepared: &[Prepared<'_>],
    ) -> Option<&mut Known> {
        let sort = Sort::of(cycle, likeness)?;
        if let Some(at) = self.known.iter().position(|known| known.sort == sort) {
            let known = self.known.remove(at).expect("it was found there");
            self.known.push_front(known);
        } else if let Some(at) = self.seen.iter().position(|seen| *seen == sort) {
            self.seen.remove(at);
            self.known.truncate(MOST - 1);
            self.known.push_front(Known::new(sort));
        } else {
            self.seen.truncate(MOST_SEEN - 1);
            self.seen.push_front(sort);
            return None;
        }
        let known = self.known.front_mut()?;
        known.hold_for(prepared);
        Some(known)
    }
}

impl Known {
    fn new(sort: Sort) -> Self {
        Self { sort, local: Vec::new(), nodes: Vec::new(), scores: Vec::new(), scorers: 0 }
    }

    /// Forgets everything where other plugins are asked than before.
    fn hold_for(&mut self, prepared: &[Prepared<'_>]) {
        let is_local = |at: &usize| prepared[*at].evaluation.is_local();
        let local: Vec<usize> = (0..prepared.len()).filter(is_local).collect();
        let scorers = local.iter().filter(|at| prepared[**at].scores()).count();
        if (&local, scorers, self.sort.nodes) != (&self.local, self.scorers, self.nodes.len()) {
            self.nodes = vec![OfNode::default(); self.sort.nodes];
            self.scores = vec![None; self.sort.nodes * scorers];
            (self.local, self.scorers) = (local, scorers);
        }
    }

    /// The first plugin that refuses the node at a place, with its verdict.
    pub(crate) fn refusal(&mut self, prepared: &[Prepared<'_>], at: usize, node: &NodeInfo) -> Option<Refusal> {
        let known = &mut self.nodes[at];
        if known.filtered != node.version() {
            let mut local = self.local.iter().filter(|at| prepared[**at].filters);
            known.refusal = local.find_map(|at| {
                let verdict = prepared[*at].evaluation.filter(node);
                (!verdict.fits()).then_some((*at, verdict))
            });
            known.filtered = node.version();
        }
        let before = known.refusal.as_ref().map_or(prepared.len(), |(at, _)| *at);
        if self.local.len() < prepared.len() {
            let others = prepared[..before].iter().filter(|plugin| plugin.filters && !plugin.evaluation.is_local());
            for plugin in others {
                let verdict = plugin.evaluation.filter(node);
                if !verdict.fits() {
                    return Some((plugin.name, verdict));
                }
            }
        }
        known.refusal.as_ref().map(|(at, verdict)| (prepared[*at].name, verdict.clone()))
    }

    /// The scores that the plugin at a place of `prepared` gives to nodes, as [`crate::framework::Evaluation::score`] has
    /// them; `None` for plugins that look at more than one node, of which nothing is known.
    pub(crate) fn scores(
        &mut self,
        cycle: &Cycle<'_>,
        prepared: &[Prepared<'_>],
        plugin: usize,
        nodes: &[usize],
    ) -> Option<Vec<Option<i64>>> {
        let mut scorers = self.local.iter().filter(|at| prepared[**at].scores());
        let own = scorers.position(|at| *at == plugin)?;
        for at in nodes {
            self.learn_scores(prepared, *at, &cycle.nodes[*at]);
        }
        Some(nodes.iter().map(|at| self.scores[at * self.scorers + own]).collect())
    }

    fn learn_scores(&mut self, prepared: &[Prepared<'_>], at: usize, node: &NodeInfo) {
        if self.nodes[at].scored == node.version() {
            return;
        }
        let scorers = self.local.iter().filter(|at| prepared[**at].scores());
        let scores = &mut self.scores[at * self.scorers..];
        for (score, scorer) in scores.iter_mut().zip(scorers) {
            *score = prepared[*scorer].evaluation.score(node);
        }
        self.nodes[at].scored = node.version();
    }
}

#[cfg(test)]
mod tests;
