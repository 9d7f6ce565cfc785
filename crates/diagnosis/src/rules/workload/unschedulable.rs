//! H1: no node takes a pod, and the scheduler says why.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{condition, is_leaving, subject, text};
use crate::rules::lifecycle::has_no_network_yet;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "H1", title: "no node takes a pod", layer: Layer::Workload, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let is_expected = has_no_network_yet(evidence);
    let mut found = Vec::new();
    for (index, item, pod) in evidence.objects("Pod").filter(|(_, _, pod)| !is_leaving(pod)) {
        let refused = condition(pod, "PodScheduled")
            .filter(|scheduled| scheduled["status"] == "False" && scheduled["reason"] == "Unschedulable");
        let Some(scheduled) = refused else { continue };
        if is_expected && text(&scheduled["message"]).contains("taint") {
            continue;
        }
        let subject = subject(pod);
        let describe = format!("kubectl -n {} describe pod {}", subject.namespace, subject.name);
        let repair = Repair::of(&[("See what it asks for, and what the nodes have", &describe)]);
        let text = format!("{subject}: {}", text(&scheduled["message"]));
        found.push(Finding::failure(subject, item, Certainty::Proven, text, vec![index], repair));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_refused_pod_is_found_and_gated_or_scheduled_ones_are_not() {
        let pod = |status: &str, reason: &str| {
            pod(
                "a",
                "web",
                json!({}),
                json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": status, "reason": reason, "message": "0/1 nodes are available: 1 Insufficient cpu."}]}),
            )
        };
        assert_eq!(
            found(&RULE, [pod("False", "Unschedulable")]),
            ["Pod a/web: 0/1 nodes are available: 1 Insufficient cpu."]
        );
        assert_eq!(found(&RULE, [pod("False", "SchedulingGated"), pod("True", "")]), [""; 0]);
    }
}
