//! G9: the ranges of pod addresses are used up.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::events::latest_by_object;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "G9",
    title: "no range of pod addresses is left for a node",
    layer: Layer::Network,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let told = latest_by_object(evidence, |reason, message| {
        matches!(reason, "CIDRNotAvailable" | "CIDRAssignmentFailed") && !message.is_empty()
    });
    let told = told.into_iter().map(|(subject, index, message)| {
        let name = subject.to_string();
        let repair = Repair::of(&[
            ("See what the nodes have", "kubectl get nodes -o custom-columns=NAME:.metadata.name,CIDR:.spec.podCIDRs"),
            ("Enlarge the range of pods, or give each node less", ""),
        ]);
        let item = &evidence.items[index];
        Finding::failure(subject, item, Certainty::Proven, format!("{name}: {message}"), vec![index], repair)
    });
    told.collect()
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
