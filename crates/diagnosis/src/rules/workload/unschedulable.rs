//! H1: no node takes a pod, and the scheduler says why.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::action::Action;
use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{condition, is_leaving, list, subject, text};
use crate::rules::lifecycle::has_no_network_yet;
use crate::rules::workload::placement::{Refusal, refusals, table};
use crate::rules::{Layer, Rule};

/// Taints of machines that are away: on one that is ready they are left over.
const ABSENCE: [&str; 3] =
    ["node.kubernetes.io/out-of-service", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// Steps that one pod's repair may have.
const MOST_STEPS: usize = 8;

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
        let repair = repair(evidence, &subject, text(&scheduled["message"]));
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

/// What lets nodes take pods again, where the scheduler names it: first what is proven to be left over, then what a person
/// has set and may have forgotten.
fn repair(evidence: &Evidence, subject: &Subject, message: &str) -> Repair {
    let describe = format!("kubectl -n {} describe pod {}", subject.namespace, subject.name);
    let mut steps = vec![Repair::of(&[("See what it asks for, and what the nodes have", &describe)])];
    for (_, _, node) in evidence.objects("Node").filter(|(_, _, node)| is_ready(node)) {
        let name = text(&node["metadata"]["name"]);
        for key in list(&node["spec"]["taints"]).map(|taint| text(&taint["key"])) {
            if !ABSENCE.contains(&key) || !message.contains("taint") {
                continue;
            }
            let told = format!("Take the taint {key} off {name}: the machine is back and ready");
            let step = Repair::of(&[(&told, &format!("kubectl taint node {name} {key}-"))]);
            steps.push(step.acting(0, Action::RemoveTaint { node: name.to_owned(), key: key.to_owned() }));
        }
        if node["spec"]["unschedulable"] == true && message.contains("unschedulable") {
            let told = format!("If the maintenance of {name} is over, let it take pods again");
            let step = Repair::of(&[(&told, &format!("kubectl uncordon {name}"))]);
            steps.push(step.acting(0, Action::Uncordon { node: name.to_owned() }));
        }
        if steps.len() > MOST_STEPS {
            break;
        }
    }
    Repair { steps: steps.into_iter().flat_map(|repair| repair.steps).collect(), dangerous: false }
}

fn is_ready(node: &Value) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::action::Action;
    use crate::rules::fixtures::*;

    #[test]
    fn what_is_left_over_on_a_ready_node_is_taken_off() {
        let message = "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) had untolerated taint {node.kubernetes.io/out-of-service: nodeshutdown}.";
        let waiting = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]});
        let of = |name: &str, ready: &str, spec: Value| {
            let mut node = node(name, json!([{"type": "Ready", "status": ready}]));
            node["spec"] = spec;
            node
        };
        let taint = json!({"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]});
        let objects = [
            of("back", "True", taint.clone()),
            of("off", "Unknown", taint),
            of("cordoned", "True", json!({"unschedulable": true})),
            pod("a", "web", json!({}), waiting),
        ];
        let item =
            |object| Item { time: None, place: Place::Cluster, origin: "o".to_owned(), fact: Fact::Object(object) };
        let items: Vec<Item> = objects.into_iter().map(item).collect();
        let found = (RULE.find)(&Evidence { gathered: now(), items: items.into(), unseen: Vec::new() });
        let actions: Vec<Action> = found[0].repair.steps.iter().filter_map(|step| step.action.clone()).collect();
        let key = "node.kubernetes.io/out-of-service".to_owned();
        assert_eq!(
            actions,
            [Action::RemoveTaint { node: "back".to_owned(), key }, Action::Uncordon { node: "cordoned".to_owned() }]
        );
    }

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
