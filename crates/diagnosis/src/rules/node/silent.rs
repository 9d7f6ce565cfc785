//! E2: a node has said nothing for its time of grace.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{condition, subject, text};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "E2",
    title: "the node agent of a machine is silent",
    layer: Layer::Kubelet,
    explains: &[Explains { ids: &["W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, node) in evidence.objects("Node") {
        let Some(condition) = condition(node, "Ready").filter(|ready| ready["status"] == "Unknown") else { continue };
        let name = text(&node["metadata"]["name"]);
        let message = text(&condition["message"]);
        let repair = Repair::of(&[
            ("On the machine: does the kubelet run, and what does it say?", "systemctl status kubelet"),
            ("And the machine itself", "kedge doctor node"),
        ]);
        let text = format!("{name}: {message}");
        found.push(Finding::failure(subject(node), item, Certainty::Proven, text, vec![index], repair).on_node(name));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_unknown_node_is_found_and_a_sick_or_sound_one_is_not() {
        let ready = |status: &str| {
            node("one", json!([{"type": "Ready", "status": status, "message": "Kubelet stopped posting node status."}]))
        };
        assert_eq!(found(&RULE, [ready("Unknown")]), ["one: Kubelet stopped posting node status."]);
        assert_eq!(found(&RULE, [ready("False"), ready("True")]), [""; 0]);
    }
}
