//! E3: a node is not ready because no CNI configuration is there.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::object::text;
use crate::rules::lifecycle::has_no_network_yet;
use crate::rules::node::by_condition;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "E3",
    title: "a node has no pod network",
    layer: Layer::Network,
    explains: &[Explains { ids: &["H1", "W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    // A cluster that never had one is told its next step instead.
    if has_no_network_yet(evidence) {
        return Vec::new();
    }
    let holds = |ready: &Value| {
        let message = text(&ready["message"]);
        ready["status"] == "False"
            && (message.contains("NetworkPluginNotReady") || message.contains("cni plugin not initialized"))
    };
    by_condition(evidence, "Ready", holds, |name| {
        Repair::of(&[
            ("See which configuration there is", "ls /etc/cni/net.d"),
            (
                "See whether the network's own pods run on this node",
                &format!("kubectl get pods -A -o wide --field-selector spec.nodeName={name}"),
            ),
        ])
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_missing_network_is_found_in_both_wordings() {
        for message in [
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized",
            "cni plugin not initialized",
        ] {
            assert_eq!(
                found(&RULE, [node("one", json!([{"type": "Ready", "status": "False", "message": message}]))]).len(),
                1
            );
        }
        let other = node("one", json!([{"type": "Ready", "status": "False", "message": "container runtime is down"}]));
        assert_eq!(found(&RULE, [other]), [""; 0]);
    }
}
