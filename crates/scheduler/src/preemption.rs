//! Preemption: which pods of lower priority have to go so that a pod fits, on the node where that does the least harm.
//!
//! Pure: it names the node and the victims; who deletes them is not its business.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::cycle::{Failure, Prepared, fits_changed};
use crate::framework::{Cycle, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use crate::selectors::label_selector_matches;

/// A node and the pods that must leave it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) node: String,
    pub(crate) victims: Vec<Arc<PodInfo>>,
    /// How many victims go against a disruption budget.
    pub(crate) violations: usize,
}

/// What a candidate costs, in upstream's order: budgets violated, highest priority, sum of priorities, count, and how
/// long the most important victim has run (the later its start, the better).
type Cost = (usize, i32, i64, usize, Reverse<Option<Timestamp>>);

/// How the nodes are gone through: from where, and after how many candidates it is enough.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) start: usize,
    pub(crate) enough: usize,
}

/// Whether a pod may make others go at all.
pub(crate) fn may_preempt(pod: &PodInfo) -> bool {
    pod.pod().spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref()) != Some("Never")
}

/// A node as it must be seen where that is not as it is: with pods that were promised it.
pub(crate) type Seen<'a> = &'a dyn Fn(&Arc<NodeInfo>) -> Option<Arc<NodeInfo>>;

/// For whom room is looked for, and by what others are judged that would have to go.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) cycle: &'a Cycle<'a>,
    pub(crate) prepared: &'a [Prepared<'a>],
    pub(crate) profile: &'a Profile,
    pub(crate) budgets: &'a [Arc<PodDisruptionBudget>],
    pub(crate) seen: Seen<'a>,
}

/// Nodes on which evicting pods of lower priority makes room, besides what others were promised there: as many as are
/// enough. `victims` says who would have to go from the node at a place.
pub(crate) fn candidates(
    failure: &Failure,
    effort: Effort,
    victims: &mut dyn FnMut(usize) -> Option<Arc<Candidate>>,
) -> Vec<Arc<Candidate>> {
    let mut helpful: Vec<usize> = failure
        .verdicts
        .iter()
        .filter(|(_, verdict)| matches!(verdict, Verdict::Unschedulable(_)))
        .map(|(at, _)| *at)
        .collect();
    helpful.sort_unstable();
    let begin = effort.start % helpful.len().max(1);
    helpful.rotate_left(begin);
    let mut found: Vec<Arc<Candidate>> = Vec::new();
    for at in helpful {
        if found.len() >= effort.enough && found.iter().any(|candidate| candidate.violations == 0) {
            break;
        }
        found.extend(victims(at));
    }
    found
}

/// The candidate that does the least harm.
pub(crate) fn cheapest(candidates: Vec<Arc<Candidate>>) -> Option<Arc<Candidate>> {
    let costs = candidates.into_iter().map(|candidate| (cost(&candidate), candidate));
    let cheapest = costs.min_by(|(one, left), (other, right)| (one, &left.node).cmp(&(other, &right.node)));
    cheapest.map(|(_, candidate)| candidate)
}

/// The tail of the message about a pod that fits nowhere.
pub(crate) fn unhelpful_text(failure: &Failure) -> String {
    let (total, unresolvable) = (failure.total, failure.unresolvable());
    let mut parts = Vec::new();
    if total > unresolvable {
        parts.push(format!("{} No preemption victims found for incoming pod", total - unresolvable));
    }
    if unresolvable > 0 {
        parts.push(format!("{unresolvable} Preemption is not helpful for scheduling"));
    }
    parts.sort();
    format!("preemption: 0/{total} nodes are available: {}.", parts.join(", "))
}

/// Who has to leave the node at a place of the cycle, as few and as unimportant as possible.
pub(crate) fn victims_on(terms: Terms<'_>, at: usize) -> Option<Candidate> {
    let Terms { cycle, prepared, profile, budgets, seen } = terms;
    let priority = cycle.pod.priority;
    if !cycle.nodes[at].pods.iter().any(|other| other.priority < priority) {
        return None;
    }
    let mut node = seen(&cycle.nodes[at]).unwrap_or_else(|| cycle.nodes[at].clone());
    let mut lower: Vec<Arc<PodInfo>> = node.pods.iter().filter(|other| other.priority < priority).cloned().collect();
    let changed = Arc::make_mut(&mut node);
    for other in &lower {
        changed.remove_same(other);
    }
    if !fits_changed(cycle, prepared, profile, at, &node) {
        return None;
    }
    lower.sort_by_key(|other| (Reverse(other.priority), other.started_at));
    // Bring back as many as possible: those whose budget would be violated first, then the most important.
    let (protected, free) = by_budgets(lower, budgets);
    let mut candidate = Candidate { node: node.name.clone(), victims: Vec::new(), violations: 0 };
    for (other, is_protected) in
        protected.into_iter().map(|pod| (pod, true)).chain(free.into_iter().map(|pod| (pod, false)))
    {
        Arc::make_mut(&mut node).add_new(other.clone());
        if !fits_changed(cycle, prepared, profile, at, &node) {
            Arc::make_mut(&mut node).remove_same(&other);
            candidate.victims.push(other);
            candidate.violations += usize::from(is_protected);
        }
    }
    (!candidate.victims.is_empty()).then_some(candidate)
}

fn cost(candidate: &Candidate) -> Cost {
    let victims = &candidate.victims;
    let highest = victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
    let important = victims.iter().filter(|victim| victim.priority == highest);
    // Priorities are made positive, so that many victims are never cheaper than few.
    let sum = victims.iter().map(|victim| i64::from(victim.priority) + i64::from(i32::MAX) + 1).sum();
    let earliest = important.filter_map(|victim| victim.started_at).min();
    (candidate.violations, highest, sum, victims.len(), Reverse(earliest))
}

/// Pods, the most important first, as those whose end would violate a disruption budget and those whose would not: each
/// uses up what a budget allows.
fn by_budgets(pods: Vec<Arc<PodInfo>>, budgets: &[Arc<PodDisruptionBudget>]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let allowed = |budget: &Arc<PodDisruptionBudget>| {
        budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or_default()
    };
    let mut left: Vec<i32> = budgets.iter().map(allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut is_violated = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            if covers(budget, pod) && !is_going(budget, pod) {
                *left -= 1;
                is_violated |= *left < 0;
            }
        }
        is_violated
    })
}

fn covers(budget: &PodDisruptionBudget, pod: &PodInfo) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    budget.metadata.namespace.as_deref() == Some(pod.namespace())
        && !pod.labels().is_empty()
        && label_selector_matches(selector, pod.labels())
}

/// Whether the budget knows already that the pod goes.
fn is_going(budget: &PodDisruptionBudget, pod: &PodInfo) -> bool {
    let disrupted = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    disrupted.is_some_and(|pods| pods.contains_key(&pod.key.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::{Sample, find_fitting, prepare};
    use crate::framework::Surroundings;
    use crate::nominated::Nominated;
    use crate::plugins::test_world::{node, pod};
    use serde_json::json;

    fn asking(name: &str, cpu: &str, priority: i32) -> PodInfo {
        pod(json!({"metadata": {"name": name, "namespace": "d", "labels": {"app": name}}, "spec": {
            "priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
    }

    fn one_cpu(name: &str, pods: Vec<PodInfo>) -> NodeInfo {
        let value = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "1", "pods": "10"}}});
        node(value, pods)
    }

    fn preempt(
        pod: &PodInfo,
        nodes: &[NodeInfo],
        budgets: &[Arc<PodDisruptionBudget>],
    ) -> Option<(String, Vec<String>)> {
        preempt_beside(pod, nodes, budgets, &Nominated::default())
    }

    fn preempt_beside(
        pod: &PodInfo,
        nodes: &[NodeInfo],
        budgets: &[Arc<PodDisruptionBudget>],
        nominated: &Nominated,
    ) -> Option<(String, Vec<String>)> {
        if !may_preempt(pod) {
            return None;
        }
        let (profile, surroundings) = (Profile::default(), Surroundings::default());
        let nodes: Vec<Arc<NodeInfo>> = nodes.iter().cloned().map(Arc::new).collect();
        let cycle = Cycle { pod, nodes: &nodes, surroundings: &surroundings, cache: None };
        let prepared = prepare(&cycle, &profile);
        let found = find_fitting(&cycle, &prepared, Sample::of(nodes.len(), 0, 0), &|_| None);
        assert!(found.nodes.is_empty(), "it fits");
        let effort = Effort { start: 1, enough: 100 };
        let seen = |node: &Arc<NodeInfo>| nominated.seen_by(pod, node);
        let terms = Terms { cycle: &cycle, prepared: &prepared, profile: &profile, budgets, seen: &seen };
        let victims = &mut |at: usize| victims_on(terms, at).map(Arc::new);
        let found = cheapest(candidates(&found.failure, effort, victims))?;
        let mut names: Vec<String> = found.victims.iter().map(|victim| victim.key.name.clone()).collect();
        names.sort();
        Some((found.node.clone(), names))
    }

    #[test]
    fn the_least_important_pods_go() {
        let nodes = [
            one_cpu("n1", vec![asking("a", "600m", 5), asking("b", "400m", 1)]),
            one_cpu("n2", vec![asking("c", "1", 7)]),
        ];
        assert_eq!(preempt(&asking("new", "400m", 9), &nodes, &[]), Some(("n1".into(), vec!["b".into()])));
        assert_eq!(preempt(&asking("new", "500m", 9), &nodes, &[]), Some(("n1".into(), vec!["a".into()])));
        assert_eq!(preempt(&asking("new", "400m", 1), &nodes, &[]), None, "nobody is less important");
        let mut polite = asking("new", "400m", 9);
        let mut value = serde_json::to_value(polite.pod()).unwrap();
        value["spec"]["preemptionPolicy"] = json!("Never");
        polite = pod(value);
        assert_eq!(preempt(&polite, &nodes, &[]), None);
    }

    #[test]
    fn regress_what_others_were_promised_is_not_taken_twice() {
        let nodes = [one_cpu("n1", vec![asking("a", "1", 1)]), one_cpu("n2", vec![asking("b", "1", 1)])];
        let mut nominated = Nominated::default();
        nominated.add(Arc::new(asking("first", "1", 9)), "n1");
        let second = |nominated: &Nominated| preempt_beside(&asking("second", "1", 9), &nodes, &[], nominated);
        assert_eq!(second(&nominated), Some(("n2".into(), vec!["b".into()])));
        nominated.add(Arc::new(asking("third", "1", 9)), "n2");
        assert_eq!(second(&nominated), None);
    }

    #[test]
    fn budgets_are_spared_where_possible() {
        let nodes = [one_cpu("n1", vec![asking("a", "1", 1)]), one_cpu("n2", vec![asking("b", "1", 1)])];
        let budget: PodDisruptionBudget = serde_json::from_value(json!({"metadata": {"namespace": "d"},
            "spec": {"selector": {"matchLabels": {"app": "a"}}},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}}))
        .unwrap();
        let found = preempt(&asking("new", "1", 9), &nodes, &[Arc::new(budget)]);
        assert_eq!(found, Some(("n2".into(), vec!["b".into()])));
    }

    #[test]
    fn a_budget_is_used_up_by_the_pods_it_covers() {
        let both = [
            one_cpu("n1", vec![asking("a", "500m", 1), asking("b", "500m", 2)]),
            one_cpu("n2", vec![asking("c", "1", 1)]),
        ];
        let budget = |allowed: i32, disrupted: serde_json::Value| -> Arc<PodDisruptionBudget> {
            let selector = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]});
            let value = json!({"metadata": {"namespace": "d"}, "spec": {"selector": selector}, "status": {
                "disruptionsAllowed": allowed, "disruptedPods": disrupted,
                "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
            Arc::new(serde_json::from_value(value).unwrap())
        };
        let other: Arc<PodDisruptionBudget> = Arc::new(
            serde_json::from_value(json!({"metadata": {"namespace": "d"},
            "spec": {"selector": {"matchLabels": {"app": "c"}}}}))
            .unwrap(),
        );
        let check = |budgets: &[Arc<PodDisruptionBudget>], node: &str| {
            assert_eq!(preempt(&asking("new", "1", 9), &both, budgets).map(|found| found.0).as_deref(), Some(node));
        };
        check(&[budget(1, json!({})), other.clone()], "n2");
        check(&[budget(2, json!({})), other.clone()], "n1");
        check(&[budget(1, json!({"a": "2026-01-01T00:00:00Z"})), other], "n1");
    }

    #[test]
    fn the_message_says_why_nothing_helps() {
        let failure = Failure {
            total: 2,
            verdicts: vec![
                (0, Verdict::unschedulable("Insufficient cpu")),
                (1, Verdict::unresolvable("node(s) were unschedulable")),
            ],
            refused_by: ["NodeResourcesFit", "NodeUnschedulable"].into(),
            ..Failure::default()
        };
        assert_eq!(
            format!("{} {}", failure.message(), unhelpful_text(&failure)),
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. preemption: 0/2 nodes are \
             available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
        );
    }
}
