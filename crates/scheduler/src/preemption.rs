//! Preemption: which pods of lower priority have to go so that a pod fits, on the node where that does the least harm.
//!
//! Pure: it names the node and the victims; who deletes them is not its business.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::cycle::{Failure, fits};
use crate::framework::{Cycle, Plugin, Surroundings, Verdict};
use crate::node_info::{NodeInfo, PodInfo};
use crate::selectors::label_selector_matches;

/// A node and the pods that must leave it.
#[derive(Debug)]
pub(crate) struct Preemption {
    pub(crate) node: String,
    pub(crate) victims: Vec<Arc<PodInfo>>,
}

/// What a candidate costs, in upstream's order: budgets violated, highest priority, sum of priorities, count, and how
/// long the most important victim has run (the later its start, the better).
type Cost = (usize, i32, i64, usize, std::cmp::Reverse<Option<Timestamp>>);

/// Looks for the cheapest node on which evicting pods of lower priority makes room.
pub(crate) fn find(
    pod: &PodInfo,
    nodes: &[&NodeInfo],
    failure: &Failure,
    surroundings: &Surroundings,
    plugins: &[Box<dyn Plugin>],
    budgets: &[Arc<PodDisruptionBudget>],
) -> Option<Preemption> {
    if pod.pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
        return None;
    }
    let helpful = failure.verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Unschedulable(_)));
    let candidates = helpful.filter_map(|(name, _)| {
        let at = nodes.iter().position(|node| node.name == *name)?;
        let victims = victims_on(pod, nodes, at, surroundings, plugins, budgets)?;
        Some((cost(&victims, budgets), name.clone(), victims))
    });
    let (_, node, victims) = candidates.min_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)))?;
    Some(Preemption { node, victims })
}

/// The tail of the message about a pod that fits nowhere.
pub(crate) fn unhelpful_text(failure: &Failure) -> String {
    let total = failure.verdicts.len();
    let unresolvable =
        failure.verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Unresolvable(_))).count();
    let mut parts = Vec::new();
    if total > unresolvable {
        parts.push(format!("{} No preemption victims found for incoming pod", total - unresolvable));
    }
    if unresolvable > 0 {
        parts.push(format!("{unresolvable} Preemption is not helpful for scheduling"));
    }
    format!("preemption: 0/{total} nodes are available: {}.", parts.join(", "))
}

fn victims_on(
    pod: &PodInfo,
    nodes: &[&NodeInfo],
    at: usize,
    surroundings: &Surroundings,
    plugins: &[Box<dyn Plugin>],
    budgets: &[Arc<PodDisruptionBudget>],
) -> Option<Vec<Arc<PodInfo>>> {
    let mut node = nodes[at].clone();
    let mut lower: Vec<Arc<PodInfo>> =
        node.pods.values().filter(|other| other.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    for other in &lower {
        node.remove_pod(&other.key);
    }
    let try_fit = |node: &NodeInfo| {
        let mut changed: Vec<&NodeInfo> = nodes.to_vec();
        changed[at] = node;
        fits(&Cycle { pod, nodes: &changed, surroundings }, plugins, node)
    };
    if !try_fit(&node) {
        return None;
    }
    // Bring back as many as possible: those whose budget would be violated first, then the most important.
    lower.sort_by_key(|other| {
        (!violates(&other.pod, budgets), std::cmp::Reverse(other.priority), start_time(&other.pod))
    });
    let mut victims = Vec::new();
    for other in lower {
        node.add_pod(other.clone());
        if !try_fit(&node) {
            node.remove_pod(&other.key);
            victims.push(other);
        }
    }
    Some(victims)
}

fn cost(victims: &[Arc<PodInfo>], budgets: &[Arc<PodDisruptionBudget>]) -> Cost {
    let highest = victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
    let important = victims.iter().filter(|victim| victim.priority == highest);
    (
        victims.iter().filter(|victim| violates(&victim.pod, budgets)).count(),
        highest,
        victims.iter().map(|victim| i64::from(victim.priority)).sum(),
        victims.len(),
        std::cmp::Reverse(important.filter_map(|victim| start_time(&victim.pod)).min()),
    )
}

fn start_time(pod: &Pod) -> Option<Timestamp> {
    pod.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}

/// Whether a disruption budget allows no eviction of the pod.
fn violates(pod: &Pod, budgets: &[Arc<PodDisruptionBudget>]) -> bool {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    budgets.iter().any(|budget| {
        budget.metadata.namespace == pod.metadata.namespace
            && budget.spec.as_ref().is_some_and(|spec| label_selector_matches(spec.selector.as_ref(), &labels))
            && budget.status.as_ref().is_none_or(|status| status.disruptions_allowed.unwrap_or_default() <= 0)
    })
}

/// Pods that have been promised a node by an earlier preemption and outrank `pod` count as if they ran there.
pub(crate) fn with_nominated(nodes: &mut [NodeInfo], nominated: &[(String, Arc<PodInfo>)], pod: &PodInfo) {
    for (name, promised) in nominated {
        if promised.priority >= pod.priority
            && promised.key != pod.key
            && let Some(node) = nodes.iter_mut().find(|node| node.name == *name)
        {
            node.add_pod(promised.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::{Outcome, decide};
    use crate::plugins::default_plugins;
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
        let (plugins, surroundings) = (default_plugins(), Surroundings::default());
        let nodes: Vec<&NodeInfo> = nodes.iter().collect();
        let cycle = Cycle { pod, nodes: &nodes, surroundings: &surroundings };
        let Outcome::Unschedulable(failure) = decide(&cycle, &plugins, |_| 0) else { panic!("it fits") };
        let found = find(pod, &nodes, &failure, &surroundings, &plugins, budgets)?;
        let mut names: Vec<String> = found.victims.iter().map(|victim| victim.key.name.clone()).collect();
        names.sort();
        Some((found.node, names))
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
        let mut value = serde_json::to_value(&*polite.pod).unwrap();
        value["spec"]["preemptionPolicy"] = json!("Never");
        polite.pod = Arc::new(serde_json::from_value(value).unwrap());
        assert_eq!(preempt(&polite, &nodes, &[]), None);
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
    fn the_message_says_why_nothing_helps() {
        let failure = Failure {
            verdicts: vec![
                ("n1".into(), Verdict::unschedulable("Insufficient cpu")),
                ("n2".into(), Verdict::Unresolvable("node(s) were unschedulable".into())),
            ],
            refused_by: ["NodeResourcesFit", "NodeUnschedulable"].into(),
            refusal: None,
        };
        assert_eq!(
            format!("{} {}", failure.message(), unhelpful_text(&failure)),
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. preemption: 0/2 nodes are \
             available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
        );
    }
}
