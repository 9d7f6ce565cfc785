//! E4: a node is not ready because its container runtime is down.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::object::text;
use crate::rules::node::by_condition;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "E4",
    title: "the container runtime of a machine does not answer",
    layer: Layer::Runtime,
    explains: &[Explains { ids: &["W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let holds = |ready: &Value| {
        let message = text(&ready["message"]);
        ready["status"] == "False"
            && ["container runtime is down", "container runtime not ready", "Container runtime not ready"]
                .iter()
                .any(|words| message.contains(words))
            && !message.contains("container runtime network not ready")
    };
    by_condition(evidence, "Ready", holds, |_| {
        Repair::of(&[
            ("See what the runtime says", "journalctl -u containerd -n 50"),
            ("Restart it: containers go on meanwhile", "systemctl restart containerd"),
        ])
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_runtime_that_is_down_is_found_and_a_missing_network_is_not() {
        let node = |message: &str| node("one", json!([{"type": "Ready", "status": "False", "message": message}]));
        assert_eq!(found(&RULE, [node("container runtime is down")]).len(), 1);
        assert_eq!(found(&RULE, [node("cni plugin not initialized")]), [""; 0]);
    }
}
