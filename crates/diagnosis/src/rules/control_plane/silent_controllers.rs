//! H3: what was asked for is not being made, and nobody says why.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::is_older_than;
use crate::rules::{Layer, Rule};

const PATIENCE: i64 = 60;
const KINDS: [&str; 4] = ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"];

pub(super) const RULE: Rule =
    Rule { id: "H3", title: "no controller manager is at work", layer: Layer::Controllers, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut waiting = Vec::new();
    for kind in KINDS {
        // A controller notes the generation that it has seen, whatever becomes of it.
        waiting.extend(evidence.objects(kind).filter(|(_, _, object)| {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or_default();
            let observed = object["status"]["observedGeneration"].as_i64().unwrap_or_default();
            observed < generation && is_older_than(object, PATIENCE, evidence.gathered)
        }));
    }
    // One that was changed just now proves nothing; several, or one that nobody has ever seen, do.
    let never = waiting.iter().any(|(_, _, object)| object["status"]["observedGeneration"].is_null());
    if waiting.is_empty() || (waiting.len() < 3 && !never) {
        return Vec::new();
    }
    let item = waiting[0].1;
    let repair = Repair::of(&[
        (
            "See whether it runs, and what it said last",
            "kubectl -n kube-system get pods -l component=kube-controller-manager",
        ),
        ("On its machine, also without an API server", "kedge doctor node"),
    ]);
    let text = format!("{} objects have a generation that no controller has seen", waiting.len());
    let proof = waiting.iter().map(|(index, _, _)| *index).collect();
    let subject = Subject::new("Component", "kube-controller-manager");
    vec![Finding::failure(subject, item, Certainty::Likely, text, proof, repair)]
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn deployment(observed: serde_json::Value) -> serde_json::Value {
        old(
            json!({"kind": "Deployment", "metadata": {"name": "web", "namespace": "a", "generation": 2}, "status": {"observedGeneration": observed}}),
        )
    }

    #[test]
    fn what_nobody_has_ever_seen_is_found() {
        assert_eq!(found(&RULE, [deployment(json!(null))]).len(), 1);
        assert_eq!(found(&RULE, [deployment(json!(1)), deployment(json!(1)), deployment(json!(1))]).len(), 1);
    }

    #[test]
    fn what_is_up_to_date_or_was_changed_just_now_is_not() {
        assert_eq!(found(&RULE, [deployment(json!(2))]), [""; 0]);
        assert_eq!(found(&RULE, [deployment(json!(1))]), [""; 0]);
    }
}
