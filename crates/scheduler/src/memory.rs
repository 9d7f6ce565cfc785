//! What pods that fit nowhere were told about nodes, and who would have to go there: as long as a node is as it was, the
//! next pod of the same likeness would be told the same.
//!
//! Invariant: what is remembered of a node is of the state whose number stands beside it; promises are part of that state.

use std::collections::VecDeque;
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::framework::Verdict;
use crate::likeness::Likeness;
use crate::node_info::NodeInfo;
use crate::preemption::Candidate;

/// Of so many likenesses something is remembered: those that failed last.
const KEPT: usize = 4;

/// A plugin and why it refused a node.
pub(crate) type Refusal = (&'static str, Verdict);

#[derive(Default)]
pub(crate) struct Memory {
    told: VecDeque<(Likeness, Told)>,
}

/// What pods of one likeness were told.
#[derive(Default)]
pub(crate) struct Told {
    /// By the place of the node in the cycle.
    nodes: Vec<Option<OfNode>>,
    /// The budgets by which victims were chosen.
    budgets: Vec<Budget>,
}

/// A budget in one of its versions.
type Budget = (Option<String>, Option<String>);

struct OfNode {
    version: u64,
    refusal: Refusal,
    candidate: Option<Option<Arc<Candidate>>>,
}

impl Memory {
    /// Takes out what pods of a likeness were told, to be put back with [`Self::put`].
    pub(crate) fn take(&mut self, likeness: &Likeness) -> Option<Told> {
        let at = self.told.iter().position(|(other, _)| other == likeness)?;
        self.told.remove(at).map(|(_, told)| told)
    }

    pub(crate) fn put(&mut self, likeness: Likeness, told: Told) {
        self.told.push_back((likeness, told));
        if self.told.len() > KEPT {
            self.told.pop_front();
        }
    }
}

impl Told {
    /// Who refused the node as it is now, and why.
    pub(crate) fn refusal(&self, at: usize, node: &NodeInfo) -> Option<&Refusal> {
        self.of_node(at, node).map(|known| &known.refusal)
    }

    pub(crate) fn note(&mut self, at: usize, node: &NodeInfo, refusal: Refusal) {
        if self.nodes.len() <= at {
            self.nodes.resize_with(at + 1, || None);
        }
        self.nodes[at] = Some(OfNode { version: node.version(), refusal, candidate: None });
    }

    /// The candidate that the node is as it is now, or that it is none; `None` where that is not known.
    pub(crate) fn candidate(&self, at: usize, node: &NodeInfo) -> Option<&Option<Arc<Candidate>>> {
        self.of_node(at, node)?.candidate.as_ref()
    }

    /// Remembers a candidate beside the refusal of the same state, where that is remembered.
    pub(crate) fn note_candidate(&mut self, at: usize, node: &NodeInfo, candidate: Option<Arc<Candidate>>) {
        let known = self.nodes.get_mut(at).and_then(Option::as_mut);
        if let Some(known) = known.filter(|known| known.version == node.version()) {
            known.candidate = Some(candidate);
        }
    }

    /// Victims that were chosen by other budgets than these are remembered no longer.
    pub(crate) fn judge_by(&mut self, budgets: &[Arc<PodDisruptionBudget>]) {
        let version = |budget: &Arc<PodDisruptionBudget>| -> Budget {
            (budget.metadata.uid.clone(), budget.metadata.resource_version.clone())
        };
        let budgets: Vec<Budget> = budgets.iter().map(version).collect();
        if self.budgets != budgets {
            self.nodes.iter_mut().flatten().for_each(|known| known.candidate = None);
            self.budgets = budgets;
        }
    }

    fn of_node(&self, at: usize, node: &NodeInfo) -> Option<&OfNode> {
        self.nodes.get(at)?.as_ref().filter(|known| known.version == node.version())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{node, pod};
    use serde_json::json;

    fn refusal() -> Refusal {
        ("Fit", Verdict::unschedulable("full"))
    }

    #[test]
    fn a_node_that_changed_is_not_remembered() {
        let (mut told, mut at) = (Told::default(), node(json!({"metadata": {"name": "n"}}), vec![]));
        told.note(3, &at, refusal());
        assert_eq!(told.refusal(3, &at), Some(&refusal()));
        assert_eq!((told.refusal(2, &at), told.refusal(9, &at)), (None, None), "other nodes");
        assert!(told.candidate(3, &at).is_none());
        told.note_candidate(3, &at, None);
        assert!(told.candidate(3, &at).is_some_and(Option::is_none));
        at.add_pod(Arc::new(pod(json!({"metadata": {"name": "p"}, "spec": {"containers": []}}))));
        assert_eq!(told.refusal(3, &at), None);
        told.note_candidate(3, &at, None);
        assert!(told.candidate(3, &at).is_none(), "its refusal was that of another state");
    }

    #[test]
    fn other_budgets_make_other_victims() {
        let budget = |version: &str| -> Arc<PodDisruptionBudget> {
            let metadata = json!({"uid": "u", "resourceVersion": version});
            Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap())
        };
        let (mut told, at) = (Told::default(), node(json!({"metadata": {"name": "n"}}), vec![]));
        told.note(0, &at, refusal());
        told.judge_by(&[budget("1")]);
        told.note_candidate(0, &at, None);
        told.judge_by(&[budget("1")]);
        assert!(told.candidate(0, &at).is_some());
        told.judge_by(&[budget("2")]);
        assert!(told.candidate(0, &at).is_none() && told.refusal(0, &at).is_some());
    }

    #[test]
    fn only_what_failed_last_is_remembered() {
        let like = |priority: usize| {
            let spec = json!({"priority": priority, "containers": []});
            Likeness::of(&pod(json!({"metadata": {"name": "p"}, "spec": spec})))
        };
        let mut memory = Memory::default();
        for number in 0..=KEPT {
            memory.put(like(number), Told::default());
        }
        assert!(memory.take(&like(0)).is_none() && memory.take(&like(1)).is_some());
        assert!(memory.take(&like(1)).is_none(), "it was taken out");
    }
}
