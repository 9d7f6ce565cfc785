//! E2: a node has said nothing for its time of grace.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::node::by_condition;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "E2",
    title: "the node agent of a machine is silent",
    layer: Layer::Controllers,
    explains: &[Explains { ids: &["H1", "H7", "W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let holds = |ready: &Value| ready["status"] == "Unknown";
    by_condition(evidence, "Ready", holds, |_| {
        Repair::of(&[
            ("On the machine: does the kubelet run, and what does it say?", "systemctl status kubelet"),
            ("And the machine itself", "kedge doctor node"),
        ])
    })
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
