//! I6: a pod's volumes are not there in time. This only says so: another event on the pod says why.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::events::told_by_events;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "I6",
    title: "the volumes of a pod are not attached or mounted",
    layer: Layer::Workload,
    explains: &[Explains { ids: &["W2"], scope: Scope::SameSubject }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        (
            "Look for FailedAttachVolume and FailedMount of the same pod, which name the cause",
            "kubectl get events -A --field-selector type=Warning",
        ),
        ("Is the volume attached?", "kubectl get volumeattachments"),
    ]);
    let mut found = told_by_events(evidence, &repair, |reason, message| {
        reason == "FailedMount"
            && (message.contains("Unable to attach or mount volumes")
                || message.contains("timed out waiting for the condition"))
    });
    for finding in &mut found {
        finding.certainty = Certainty::Possible;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn volumes_that_do_not_come_are_found_in_both_wordings() {
        for message in [
            "Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], failed to process volumes=[]: context deadline exceeded",
            "Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[data kube-api-access]: timed out waiting for the condition",
        ] {
            assert_eq!(found(&RULE, [event_of("Pod", "db", "FailedMount", message)]).len(), 1);
        }
        assert_eq!(
            found(&RULE, [event_of("Pod", "db", "FailedMount", "MountVolume.SetUp failed: exit status 32")]),
            [""; 0]
        );
    }
}
