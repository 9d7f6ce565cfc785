//! E19: two machines are one in the eyes of the cluster: they were copied.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::text;
use crate::rules::lines::{says, told_of_machines};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "E19", title: "machines are copies of one another", layer: Layer::System, explains: &[], find };

const FORMS: &[&[&str]] =
    &[&["Node password rejected, duplicate hostname"], &["a node with name", "already exists in the cluster"]];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = told_of_machines(
        evidence,
        |line| says(&line.text, FORMS),
        |line| line.text.contains("This node has joined the cluster"),
        |line| (format!("another machine of this name is in the cluster: {line}"), repair()),
    );
    for field in ["machineID", "systemUUID"] {
        found.extend(twins(evidence, field));
    }
    found
}

/// Nodes with the same id, unless they run on one kernel: then they are containers of one machine.
fn twins(evidence: &Evidence, field: &str) -> Vec<Finding> {
    let mut by_id: BTreeMap<&str, Vec<(usize, &Value)>> = BTreeMap::new();
    for (index, _, node) in evidence.objects("Node") {
        let id = text(&node["status"]["nodeInfo"][field]);
        if !id.is_empty() {
            by_id.entry(id).or_default().push((index, node));
        }
    }
    let boot = |node: &Value| text(&node["status"]["nodeInfo"]["bootID"]).to_owned();
    let twins = by_id.into_iter().filter_map(|(id, nodes)| {
        let (first, node) = *nodes.first()?;
        if nodes.iter().all(|(_, other)| boot(other) == boot(node)) {
            return None;
        }
        let names: Vec<&str> = nodes.iter().map(|(_, node)| text(&node["metadata"]["name"])).collect();
        let told = format!("{} have the same {field} {id}", names.join(", "));
        let proof = nodes.iter().map(|(index, _)| *index).collect();
        let subject = Subject::new("Node", names[0]);
        let mut finding = Finding::failure(subject, &evidence.items[first], Certainty::Likely, told, proof, repair());
        finding.severity = Severity::Warning;
        Some(finding)
    });
    twins.collect()
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "On the copy: a machine id of its own",
            "rm -f /etc/machine-id /var/lib/dbus/machine-id && systemd-machine-id-setup",
        ),
        ("And a name of its own", "hostnamectl set-hostname NAME"),
        (
            "With k3s, the stored password of the name too",
            "kubectl -n kube-system delete secret NAME.node-password.k3s",
        ),
        ("Join it anew", "kedge reset && kedge join ..."),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn machine(name: &str, id: &str, boot: &str) -> Value {
        let mut node = node(name, json!([]));
        node["status"]["nodeInfo"] = json!({"machineID": id, "bootID": boot});
        node
    }

    #[test]
    fn copies_are_found_and_containers_of_one_machine_are_not() {
        let found_of = |nodes: [Value; 2]| found(&RULE, nodes);
        assert_eq!(
            found_of([machine("one", "a", "1"), machine("two", "a", "2")]),
            ["one, two have the same machineID a"]
        );
        assert_eq!(found_of([machine("one", "a", "1"), machine("two", "b", "2")]), [""; 0]);
        assert_eq!(found_of([machine("one", "a", "1"), machine("two", "a", "1")]), [""; 0]);
        let line = "level=error msg=\"Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-passwd entry\"";
        assert_eq!(found_among(&RULE, [logged("k3s", line)]).len(), 1);
    }
}
