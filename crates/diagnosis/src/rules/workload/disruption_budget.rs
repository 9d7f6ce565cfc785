//! H10: a drain does not end, because a budget lets none of its pods go.

use jiff::Timestamp;
use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{condition, is_leaving, subject, text};
use crate::rules::selector;
use crate::rules::signs::Sign;
use crate::rules::{Layer, Rule};

const SIGN: Sign = Sign {
    programs: &["kubectl", "kedge"],
    words: &[&["Cannot evict pod as it would violate the pod's disruption budget"]],
    over: &[" drained"],
};

/// Seconds that the successor of an evicted pod may take.
const PATIENCE: i64 = 180;

pub(super) const RULE: Rule = Rule {
    id: "H10",
    title: "a disruption budget keeps a machine from being drained",
    layer: Layer::Workload,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = of_budgets(evidence);
    let said = SIGN.told(evidence);
    if found.is_empty() {
        found.extend(said.into_iter().map(|told| {
            let sentence = format!("a drain waits: {}", told.text.trim());
            Finding::failure(told.source.subject(), told.item, Certainty::Proven, sentence, told.lines, repair(""))
        }));
        return found;
    }
    for finding in &mut found {
        finding.evidence.extend(said.iter().flat_map(|told| told.lines.iter().copied()));
        if !said.is_empty() {
            finding.certainty = Certainty::Proven;
        }
    }
    found
}

/// Budgets that let nothing go and have pods on a machine that takes no new ones.
fn of_budgets(evidence: &Evidence) -> Vec<Finding> {
    let cordoned: Vec<&str> = evidence
        .objects("Node")
        .filter(|(_, _, node)| node["spec"]["unschedulable"] == true)
        .map(|(_, _, node)| text(&node["metadata"]["name"]))
        .collect();
    if cordoned.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let budgets = evidence.objects("PodDisruptionBudget");
    let budgets = budgets.filter(|(_, _, budget)| lets_nothing_go(budget) && !is_settling(budget, evidence.gathered));
    for (index, item, budget) in budgets {
        let held = evidence.objects("Pod").find(|(_, _, pod)| {
            cordoned.contains(&text(&pod["spec"]["nodeName"])) && !is_leaving(pod) && selects(budget, pod)
        });
        let Some((pod_index, _, pod)) = held else { continue };
        let (who, status) = (subject(budget), &budget["status"]);
        let told = format!(
            "{who} lets no pod go ({} of {} are healthy and {} must be), and {} is on {}, which is to be drained",
            status["currentHealthy"],
            status["expectedPods"],
            status["desiredHealthy"],
            subject(pod),
            text(&pod["spec"]["nodeName"])
        );
        let proof = vec![index, pod_index];
        let repair = repair(&format!("kubectl -n {} describe pdb {}", who.namespace, who.name));
        found.push(Finding::failure(who, item, Certainty::Likely, told, proof, repair));
    }
    found
}

fn lets_nothing_go(budget: &Value) -> bool {
    let status = &budget["status"];
    status["disruptionsAllowed"] == 0 && status["expectedPods"].as_i64().is_some_and(|count| count > 0)
}

/// Whether a pod was let go just now and is not counted yet, or the last one that went is only being replaced: a drain goes
/// on when its successor is ready.
fn is_settling(budget: &Value, now: Timestamp) -> bool {
    let status = &budget["status"];
    let let_go = status["disruptedPods"].as_object().into_iter().flatten();
    let mut let_go = let_go.filter_map(|(_, at)| text(at).parse::<Timestamp>().ok());
    if let_go.any(|at| now.as_second() - at.as_second() < PATIENCE) {
        return true;
    }
    let since =
        condition(budget, "DisruptionAllowed").and_then(|allowed| text(&allowed["lastTransitionTime"]).parse().ok());
    let is_new = since.is_some_and(|since: Timestamp| now.as_second() - since.as_second() < PATIENCE);
    is_new && status["currentHealthy"].as_i64() < status["expectedPods"].as_i64()
}

fn selects(budget: &Value, pod: &Value) -> bool {
    budget["metadata"]["namespace"] == pod["metadata"]["namespace"]
        && selector::selects(&budget["spec"]["selector"], &pod["metadata"]["labels"])
}

fn repair(look: &str) -> Repair {
    Repair::of(&[
        (
            "See how many pods it asks for, and why some are not healthy",
            if look.is_empty() { "kubectl get pdb -A" } else { look },
        ),
        ("Run one pod more, or mend those that are not healthy", "kubectl scale deployment NAME --replicas=N"),
        (
            "Let pods go that are not healthy anyway",
            "kubectl patch pdb NAME --type merge -p '{\"spec\":{\"unhealthyPodEvictionPolicy\":\"AlwaysAllow\"}}'",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn budget(allowed: u64) -> Value {
        json!({"kind": "PodDisruptionBudget", "metadata": {"namespace": "a", "name": "web"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"disruptionsAllowed": allowed, "expectedPods": 1, "currentHealthy": 1, "desiredHealthy": 1}})
    }

    fn machine(cordoned: bool) -> Value {
        let mut node = node("one", json!([]));
        node["spec"] = json!({"unschedulable": cordoned});
        node
    }

    fn web(app: &str) -> Value {
        let mut pod = pod("a", "web-1", json!({"nodeName": "one"}), json!({"phase": "Running"}));
        pod["metadata"]["labels"] = json!({"app": app});
        pod
    }

    #[test]
    fn a_budget_in_the_way_of_a_drain_is_found() {
        assert_eq!(
            found(&RULE, [budget(0), machine(true), web("web")]),
            [
                "PodDisruptionBudget a/web lets no pod go (1 of 1 are healthy and 1 must be), and Pod a/web-1 is on one, which is to be drained"
            ]
        );
        let said = "error when evicting pods/\"web-1\" -n \"a\" (will retry after 5s): Cannot evict pod as it would violate the pod's disruption budget.";
        assert_eq!(found_among(&RULE, [pasted("kubectl", said)]).len(), 1);
        assert_eq!(found_among(&RULE, [pasted("kubectl", said), pasted("kubectl", "node/one drained")]), [""; 0]);
    }

    #[test]
    fn a_strict_budget_without_a_drain_is_right() {
        assert_eq!(found(&RULE, [budget(0), machine(false), web("web")]), [""; 0]);
        assert_eq!(found(&RULE, [budget(1), machine(true), web("web")]), [""; 0]);
        assert_eq!(found(&RULE, [budget(0), machine(true), web("other")]), [""; 0]);
    }
}
