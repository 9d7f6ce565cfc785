//! I1: a claim has no class, no default class is there, and no volume fits.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::events::latest_by_object;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "I1",
    title: "a claim names no class, and there is no default",
    layer: Layer::Workload,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let told = latest_by_object(evidence, |reason, message| {
        reason == "FailedBinding" && message.contains("no storage class is set")
    });
    let told = told.into_iter().map(|(subject, index, message)| {
        let name = subject.to_string();
        let repair = Repair::of(&[
            (
                "Mark a class as the default",
                "kubectl annotate storageclass NAME storageclass.kubernetes.io/is-default-class=true",
            ),
            ("Or name one in the claim", "kubectl get storageclass"),
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
    fn a_claim_without_a_class_is_found_and_one_that_waits_for_its_pod_is_not() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        assert_eq!(found(&RULE, [event_of("PersistentVolumeClaim", "data", "FailedBinding", message)]).len(), 1);
        let waits = "waiting for first consumer to be created before binding";
        assert_eq!(found(&RULE, [event_of("PersistentVolumeClaim", "data", "WaitForFirstConsumer", waits)]), [""; 0]);
    }
}
