//! One scheduling decision: filter all nodes, score those that fit, choose the best.

use std::collections::{BTreeMap, BTreeSet};

use crate::framework::{Cycle, Evaluation, Plugin, Verdict};
use crate::node_info::NodeInfo;

/// What became of a cycle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The pod goes to this node.
    Node(String),
    /// No node fits.
    Unschedulable(Failure),
}

/// Why no node fits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The verdict for each node.
    pub(crate) verdicts: Vec<(String, Verdict)>,
    /// The plugins that refused a node.
    pub(crate) refused_by: BTreeSet<&'static str>,
    /// Why no node was even looked at.
    pub(crate) refusal: Option<String>,
}

/// A plugin's evaluation of this cycle, with its name and weight.
struct Prepared<'a> {
    name: &'static str,
    weight: i64,
    evaluation: Box<dyn Evaluation + 'a>,
}

impl Failure {
    /// Upstream's sentence: `0/3 nodes are available: 1 Insufficient memory, 2 Insufficient cpu.`
    pub(crate) fn message(&self) -> String {
        let total = self.verdicts.len();
        if total == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        if let Some(refusal) = &self.refusal {
            return format!("0/{total} nodes are available: {refusal}.");
        }
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (_, verdict) in &self.verdicts {
            for reason in verdict.reasons() {
                *counts.entry(reason).or_default() += 1;
            }
        }
        let mut parts: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        format!("0/{total} nodes are available: {}.", parts.join(", "))
    }
}

/// Decides. `tie_break` picks among `n` equally good nodes.
pub(crate) fn decide(cycle: &Cycle<'_>, plugins: &[Box<dyn Plugin>], tie_break: impl Fn(usize) -> usize) -> Outcome {
    let prepared: Vec<Prepared<'_>> = plugins
        .iter()
        .filter_map(|plugin| {
            let evaluation = plugin.prepare(cycle)?;
            Some(Prepared { name: plugin.name(), weight: plugin.weight(), evaluation })
        })
        .collect();
    let mut fitting: Vec<&NodeInfo> = Vec::new();
    let mut failure = Failure { verdicts: Vec::new(), refused_by: BTreeSet::new(), refusal: None };
    let refusals = prepared.iter().filter_map(|plugin| Some((plugin.name, plugin.evaluation.refusal()?)));
    if let Some((plugin, refusal)) = refusals.into_iter().next() {
        let verdict = Verdict::Unresolvable(refusal.clone());
        failure.verdicts = cycle.nodes.iter().map(|node| (node.name.clone(), verdict.clone())).collect();
        failure.refused_by.insert(plugin);
        failure.refusal = Some(refusal);
        return Outcome::Unschedulable(failure);
    }
    for node in cycle.nodes {
        match refusal(&prepared, node) {
            None => fitting.push(node),
            Some((plugin, verdict)) => {
                failure.verdicts.push((node.name.clone(), verdict));
                failure.refused_by.insert(plugin);
            }
        }
    }
    match fitting.as_slice() {
        [] => Outcome::Unschedulable(failure),
        [only] => Outcome::Node(only.name.clone()),
        _ => Outcome::Node(best(&prepared, &fitting, tie_break)),
    }
}

/// Whether the pod fits one node, as all plugins see it.
pub(crate) fn fits(cycle: &Cycle<'_>, plugins: &[Box<dyn Plugin>], node: &NodeInfo) -> bool {
    let mut evaluations = plugins.iter().filter_map(|plugin| plugin.prepare(cycle));
    evaluations.all(|evaluation| evaluation.refusal().is_none() && evaluation.filter(node).fits())
}

/// The first plugin that refuses a node, with its verdict.
fn refusal(prepared: &[Prepared<'_>], node: &NodeInfo) -> Option<(&'static str, Verdict)> {
    let verdicts = prepared.iter().map(|plugin| (plugin.name, plugin.evaluation.filter(node)));
    verdicts.into_iter().find(|(_, verdict)| !verdict.fits())
}

fn best(prepared: &[Prepared<'_>], nodes: &[&NodeInfo], tie_break: impl Fn(usize) -> usize) -> String {
    let mut totals = vec![0; nodes.len()];
    for Prepared { weight, evaluation, .. } in prepared {
        let scores: Option<Vec<i64>> = nodes.iter().map(|node| evaluation.score(node)).collect();
        let Some(mut scores) = scores else { continue };
        evaluation.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    }
    let most = totals.iter().copied().max().unwrap_or_default();
    let tied: Vec<usize> = (0..nodes.len()).filter(|index| totals[*index] == most).collect();
    nodes[tied[tie_break(tied.len())]].name.clone()
}
