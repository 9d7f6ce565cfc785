//! I5: a volume cannot be attached, because another node still has it.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::events::told_by_events;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "I5",
    title: "a volume is still attached to another node",
    layer: Layer::Workload,
    explains: &[Explains { ids: &["I6", "W2"], scope: Scope::SameSubject }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        ("See which node has it, and whether that machine is really off", "kubectl get volumeattachments"),
        (
            "Only when it is off: let its pods and volumes go",
            "kubectl taint node NODE node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
        ),
    ]);
    told_by_events(evidence, &repair, |reason, message| {
        reason == "FailedAttachVolume" && message.contains("Multi-Attach error")
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_volume_that_is_elsewhere_is_found() {
        let message = "Multi-Attach error for volume \"pv\" Volume is already exclusively attached to one node and can't be attached to another";
        assert_eq!(found(&RULE, [event_of("Pod", "db", "FailedAttachVolume", message)]).len(), 1);
        assert_eq!(found(&RULE, [event_of("Pod", "db", "FailedAttachVolume", "rpc error: timeout")]), [""; 0]);
    }
}
