//! I1: a claim has no class, no default class is there, and no volume fits.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::events::told_by_events;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "I1",
    title: "a claim names no class, and there is no default",
    layer: Layer::Workload,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        (
            "Mark a class as the default",
            "kubectl annotate storageclass NAME storageclass.kubernetes.io/is-default-class=true",
        ),
        ("Or name one in the claim", "kubectl get storageclass"),
    ]);
    told_by_events(evidence, &repair, |reason, message| {
        reason == "FailedBinding" && message.contains("no storage class is set")
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_claim_without_a_class_is_found_and_one_that_waits_for_its_pod_is_not() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        assert_eq!(found(&RULE, [event_of("PersistentVolumeClaim", "data", "FailedBinding", message)]).len(), 1);
        let waits = "waiting for first consumer to be created before binding";
        assert_eq!(found(&RULE, [event_of("PersistentVolumeClaim", "data", "WaitForFirstConsumer", waits)]), [""; 0]);
    }
}
