//! E4: a node is not ready because its container runtime is down.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{condition, subject, text};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "E4",
    title: "the container runtime of a machine does not answer",
    layer: Layer::Runtime,
    explains: &[Explains { ids: &["W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, node) in evidence.objects("Node") {
        let Some(condition) = condition(node, "Ready").filter(|ready| {
            let message = text(&ready["message"]);
            ready["status"] == "False"
                && (message.contains("container runtime is down") || message.contains("PLEG is not healthy"))
        }) else {
            continue;
        };
        let name = text(&node["metadata"]["name"]);
        let message = text(&condition["message"]);
        let repair = Repair::of(&[
            ("See what the runtime says", "journalctl -u containerd -n 50"),
            ("Restart it: containers go on meanwhile", "systemctl restart containerd"),
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
    fn a_runtime_that_is_down_is_found_and_a_missing_network_is_not() {
        let node = |message: &str| node("one", json!([{"type": "Ready", "status": "False", "message": message}]));
        assert_eq!(found(&RULE, [node("container runtime is down")]).len(), 1);
        assert_eq!(found(&RULE, [node("cni plugin not initialized")]), [""; 0]);
    }
}
