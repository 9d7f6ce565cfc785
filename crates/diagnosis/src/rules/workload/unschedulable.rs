//! H1: no node takes a pod, and the scheduler says why.

use std::collections::BTreeMap;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{condition, is_leaving, subject, text};
use crate::rules::lifecycle::has_no_network_yet;
use crate::rules::workload::placement::{Refusal, refusals, table};
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
        let refusals = refusals(pod, evidence.objects("Node").map(|(_, _, node)| node));
        let nodes = table(&refusals).map_or(String::new(), |table| format!(" By node: {table}."));
        let text = format!("{subject}: {}{nodes}", text(&scheduled["message"]));
        let finding = Finding::failure(subject, item, Certainty::Proven, text, vec![index], repair);
        found.push(finding.on_node(in_trouble(&refusals)));
    }
    found
}

/// The one node that would take the pod if it were well: its trouble is the pod's.
fn in_trouble<'a>(refusals: &BTreeMap<&'a str, Refusal>) -> &'a str {
    let mut open = refusals.iter().filter(|(_, refusal)| !matches!(refusal, Refusal::Certain(_)));
    match (open.next(), open.next()) {
        (Some((name, Refusal::InTrouble(_))), None) => name,
        _ => "",
    }
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

    #[test]
    fn a_node_in_trouble_is_why_its_pod_waits() {
        let refused = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/2 nodes are available: 2 node(s) had untolerated taint(s)."}]);
        let waiting = pod("a", "web", json!({}), json!({"phase": "Pending", "conditions": refused}));
        let machine = |name: &str, ready: &str, taint: &str| {
            let message = "Kubelet stopped posting node status.";
            let mut node = node(name, json!([{"type": "Ready", "status": ready, "message": message}]));
            node["spec"] = json!({"taints": [{"key": taint, "effect": "NoSchedule"}]});
            node
        };
        let nodes = [
            machine("one", "True", "node-role.kubernetes.io/control-plane"),
            machine("two", "Unknown", "node.kubernetes.io/unreachable"),
        ];
        let objects = nodes.into_iter().chain([waiting]);
        let item = |object| Item { place: Place::Cluster, ..on("one", Fact::Object(object)) };
        let items = objects.map(item).collect();
        let diagnosis = crate::diagnosis::diagnose(&Evidence { gathered: now(), items, unseen: Vec::new() });
        let causes: Vec<(&str, &[String])> =
            diagnosis.causes.iter().map(|cause| (cause.id, cause.explains.as_slice())).collect();
        assert!(
            matches!(causes.as_slice(), [("E2", [h1])] if h1.ends_with("not ready: 1 (two); taint node-role.kubernetes.io/control-plane:NoSchedule: 1 (one).")),
            "{causes:?}"
        );
    }
}
