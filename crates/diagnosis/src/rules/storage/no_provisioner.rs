//! I3: a claim waits for a provisioner that does not answer.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::is_older_than;
use crate::rules::events::last_words;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Seconds that a provisioner may take: making a volume takes some minutes on slow backends.
const PATIENCE: i64 = 300;

pub(super) const RULE: Rule = Rule {
    id: "I3",
    title: "nobody makes the volume that a claim waits for",
    layer: Layer::Workload,
    explains: &[Explains { ids: &["H1"], scope: Scope::SameSubject }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    let waits = |reason: &str, message: &str| reason == "ExternalProvisioning" && provisioner(message).is_some();
    for word in last_words(evidence, waits) {
        let Some((index, item, claim)) = evidence.object(&word.subject) else { continue };
        let Some(provisioner) = provisioner(word.message) else { continue };
        if !is_older_than(claim, PATIENCE, evidence.gathered) {
            continue;
        }
        let told = format!("{} has waited over {} min for the provisioner {provisioner}", word.subject, PATIENCE / 60);
        let repair = Repair::of(&[
            ("Does it run, and what does it say?", "kubectl get pods -A | grep -e csi -e provisioner"),
            ("Is it registered under the class's name?", "kubectl get storageclass,csidrivers"),
        ]);
        let proof = vec![word.index, index];
        found.push(Finding::failure(word.subject, item, Certainty::Likely, told, proof, repair));
    }
    found
}

/// The provisioner's name, in the old wording and the new one.
fn provisioner(message: &str) -> Option<&str> {
    let rest = message.split_once("external provisioner ")?.1;
    rest.trim_start_matches(['\'', '"']).split(['\'', '"', ' ']).next()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn claim(phase: &str) -> Value {
        json!({"kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "data", "creationTimestamp": now().to_string()}, "status": {"phase": phase}})
    }

    #[test]
    fn a_claim_that_waits_for_long_is_found_in_both_wordings() {
        for message in [
            "Waiting for a volume to be created either by the external provisioner 'csi.example.com' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.",
            "waiting for a volume to be created, either by external provisioner \"csi.example.com\" or manually created by system administrator",
        ] {
            let event = || event_of("PersistentVolumeClaim", "data", "ExternalProvisioning", message);
            assert_eq!(
                found(&RULE, [old(claim("Pending")), event()]),
                ["PersistentVolumeClaim a/data has waited over 5 min for the provisioner csi.example.com"]
            );
            assert_eq!(found(&RULE, [claim("Pending"), event()]), [""; 0]);
            assert_eq!(found(&RULE, [old(claim("Bound")), event()]), [""; 0]);
        }
    }
}
