//! G9: the ranges of pod addresses are used up.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::events::told_by_events;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "G9",
    title: "no range of pod addresses is left for a node",
    layer: Layer::Network,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        ("See what the nodes have", "kubectl get nodes -o custom-columns=NAME:.metadata.name,CIDR:.spec.podCIDRs"),
        ("Enlarge the range of pods, or give each node less", ""),
    ]);
    told_by_events(evidence, &repair, |reason, message| {
        matches!(reason, "CIDRNotAvailable" | "CIDRAssignmentFailed") && !message.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_node_without_a_range_is_found() {
        assert_eq!(
            found(&RULE, [event_of("Node", "nine", "CIDRNotAvailable", "Node nine status is now: CIDRNotAvailable")])
                .len(),
            1
        );
        assert_eq!(found(&RULE, [event_of("Node", "nine", "RegisteredNode", "x")]), [""; 0]);
    }
}
