//! I4: a volume could not be made: what makes them says why.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::events::told_by_events;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "I4", title: "a volume could not be made", layer: Layer::Workload, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        (
            "The message names the cause: a class that is not there, a quota, the backend",
            "kubectl get storageclass; kubectl describe quota -A",
        ),
        ("What does the provisioner say?", "kubectl get pods -A | grep -e csi -e provisioner"),
    ]);
    told_by_events(evidence, &repair, |reason, _| reason == "ProvisioningFailed")
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_missing_class_is_found_until_the_claim_is_bound() {
        let event = || {
            event_of(
                "PersistentVolumeClaim",
                "data",
                "ProvisioningFailed",
                "storageclass.storage.k8s.io \"fast\" not found",
            )
        };
        assert_eq!(
            found(&RULE, [event()]),
            ["PersistentVolumeClaim a/data: storageclass.storage.k8s.io \"fast\" not found"]
        );
        let bound = json!({"kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "data"}, "status": {"phase": "Bound"}});
        assert_eq!(found(&RULE, [event(), bound]), [""; 0]);
        let waits = event_of(
            "PersistentVolumeClaim",
            "data",
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        );
        assert_eq!(found(&RULE, [waits]), [""; 0]);
    }
}
