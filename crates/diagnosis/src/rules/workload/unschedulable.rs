//! H1: no node takes a pod, and the scheduler says why.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde_json::Value;

use crate::action::Action;
use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{condition, is_leaving, list, subject, text};
use crate::rules::lifecycle::has_no_network_yet;
use crate::rules::workload::placement::{Refusal, refusals, table};
use crate::rules::{Layer, Rule};

/// Taints of machines that are away: on one that is ready they are left over.
const ABSENCE: [&str; 3] =
    ["node.kubernetes.io/out-of-service", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// Steps that one pod's repair may have.
const MOST_STEPS: usize = 8;
/// Seconds after which a cordon may have been forgotten: until then somebody is taken to be at work.
const FORGOTTEN: i64 = 3600;
const CORDONED: &str = "node.kubernetes.io/unschedulable";

pub(super) const RULE: Rule =
    Rule { id: "H1", title: "no node takes a pod", layer: Layer::Workload, explains: &[], find };

/// What the nodes say to pods that ask for the same.
struct Answer {
    /// Who refuses why.
    nodes: String,
    /// The one node whose trouble it is.
    trouble: String,
    /// What lets nodes take them.
    repair: Repair,
}

fn find(evidence: &Evidence) -> Vec<Finding> {
    let is_expected = has_no_network_yet(evidence);
    let mut found = Vec::new();
    // A large cluster has many pods of few workloads, and each is held against every node.
    let mut answers: HashMap<String, Answer> = HashMap::new();
    for (index, item, pod) in evidence.objects("Pod").filter(|(_, _, pod)| !is_leaving(pod)) {
        let refused = condition(pod, "PodScheduled")
            .filter(|scheduled| scheduled["status"] == "False" && scheduled["reason"] == "Unschedulable");
        let Some(scheduled) = refused else { continue };
        let message = text(&scheduled["message"]);
        if is_expected && message.contains("taint") {
            continue;
        }
        let answer = answers.entry(wants(pod, message)).or_insert_with(|| answer(evidence, pod, message));
        let subject = subject(pod);
        let describe = format!("kubectl -n {} describe pod {}", subject.namespace, subject.name);
        let mut repair = Repair::of(&[("See what it asks for, and what the nodes have", &describe)]);
        repair.steps.extend(answer.repair.steps.iter().cloned());
        let text = format!("{subject}: {message}{}", answer.nodes);
        let finding = Finding::failure(subject, item, Certainty::Proven, text, vec![index], repair);
        found.push(finding.on_node(&answer.trouble));
    }
    found
}

/// All that nodes and the repair depend on.
fn wants(pod: &Value, message: &str) -> String {
    let spec = &pod["spec"];
    let of_containers = |field: &str| {
        let resources = list(&spec[field]).map(|container| (&container["resources"], &container["restartPolicy"]));
        resources.map(|(resources, policy)| format!("{resources}{policy}")).collect::<String>()
    };
    let (init, containers) = (of_containers("initContainers"), of_containers("containers"));
    let [selector, affinity, tolerations] = [&spec["nodeSelector"], &spec["affinity"], &spec["tolerations"]];
    format!("{selector}{affinity}{tolerations}{init}|{containers}|{message}")
}

fn answer(evidence: &Evidence, pod: &Value, message: &str) -> Answer {
    let refusals = refusals(pod, evidence.objects("Node").map(|(_, _, node)| node));
    let nodes = table(&refusals).map_or(String::new(), |table| format!(" By node: {table}."));
    Answer { nodes, trouble: in_trouble(&refusals).to_owned(), repair: repair(evidence, message) }
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
fn repair(evidence: &Evidence, message: &str) -> Repair {
    let mut steps = Vec::new();
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
            steps.push(uncordon(name, cordoned_for(evidence, node)));
        }
        if steps.len() >= MOST_STEPS {
            break;
        }
    }
    Repair { steps: steps.into_iter().flat_map(|repair| repair.steps).collect(), dangerous: false }
}

/// A cordon is what a person wanted: it is taken off by a program only where it has stood for long, and pods wait for it.
fn uncordon(name: &str, seconds: Option<i64>) -> Repair {
    let command = format!("kubectl uncordon {name}");
    match seconds {
        Some(seconds) if seconds >= FORGOTTEN => {
            let told =
                format!("{name} was cordoned {} hours ago, and pods wait: let it take them again", seconds / 3600);
            Repair::of(&[(&told, &command)]).acting(0, Action::Uncordon { node: name.to_owned() })
        }
        Some(seconds) => {
            let told = format!(
                "{name} was cordoned {} minutes ago, and somebody may be at work: when the maintenance is over, let it take pods again",
                seconds.max(0) / 60
            );
            Repair::of(&[(&told, &command)])
        }
        None => Repair::of(&[(&format!("If the maintenance of {name} is over, let it take pods again"), &command)]),
    }
}

/// For how many seconds a node has taken no pods, by its taint or by what its kubelet told.
fn cordoned_for(evidence: &Evidence, node: &Value) -> Option<i64> {
    let taint = list(&node["spec"]["taints"]).find(|taint| taint["key"] == CORDONED);
    let added = taint.and_then(|taint| text(&taint["timeAdded"]).parse::<Timestamp>().ok());
    let since = added.or_else(|| {
        let told = evidence.objects("Event").filter(|(_, _, event)| {
            event["reason"] == "NodeNotSchedulable" && event["involvedObject"]["name"] == node["metadata"]["name"]
        });
        told.filter_map(|(_, item, _)| item.time).max()
    });
    since.map(|since| evidence.gathered.as_second() - since.as_second())
}

fn is_ready(node: &Value) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::action::Action;
    use crate::finding::Repair;
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
        let objects =
            [of("back", "True", taint.clone()), of("off", "Unknown", taint), pod("a", "web", json!({}), waiting)];
        let key = "node.kubernetes.io/out-of-service".to_owned();
        let repair = repair_of(objects.into_iter().map(cluster).collect());
        assert_eq!(actions(&repair), [Action::RemoveTaint { node: "back".to_owned(), key }]);
    }

    fn cluster(object: Value) -> Item {
        Item { time: None, place: Place::Cluster, origin: "o".to_owned(), fact: Fact::Object(object) }
    }

    fn repair_of(items: Vec<Item>) -> Repair {
        let evidence = Evidence { gathered: now(), items: items.into(), unseen: Vec::new() };
        (RULE.find)(&evidence).swap_remove(0).repair
    }

    fn actions(repair: &Repair) -> Vec<Action> {
        repair.steps.iter().filter_map(|step| step.action.clone()).collect()
    }

    #[test]
    fn a_cordon_is_taken_off_only_where_it_was_forgotten() {
        let at = |seconds: i64| Timestamp::from_second(now().as_second() - seconds).expect("a time").to_string();
        let cordoned = |taints: Value| {
            let mut node = node("one", json!([{"type": "Ready", "status": "True"}]));
            node["spec"] = json!({"unschedulable": true, "taints": taints});
            node
        };
        let added = |seconds: i64| cordoned(json!([{"key": super::CORDONED, "timeAdded": at(seconds)}]));
        let waiting = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/1 nodes are available: 1 node(s) were unschedulable."}]});
        let web = || cluster(pod("a", "web", json!({}), waiting.clone()));
        let told = |seconds: i64| ago(cluster(event_of("Node", "one", "NodeNotSchedulable", "x")), seconds);
        let uncordon = vec![Action::Uncordon { node: "one".to_owned() }];
        for (items, expected) in [
            (vec![cluster(added(2 * 3600)), web()], uncordon.clone()),
            (vec![cluster(added(60)), web()], vec![]),
            (vec![cluster(cordoned(json!([]))), web(), told(2 * 3600)], uncordon),
            (vec![cluster(cordoned(json!([]))), web(), told(2 * 3600), told(60)], vec![]),
            (vec![cluster(cordoned(json!([]))), web()], vec![]),
        ] {
            let repair = repair_of(items);
            assert_eq!(actions(&repair), expected);
            assert_eq!(repair.steps[1].command.as_deref(), Some("kubectl uncordon one"), "a person is told how");
        }
        // Nobody waits for it: it is as somebody wanted it.
        assert_eq!(found_among(&RULE, [cluster(added(2 * 3600))]), [""; 0]);
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
