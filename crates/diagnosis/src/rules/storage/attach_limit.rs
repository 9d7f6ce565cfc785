//! I10: a machine has as many volumes as it may have.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{condition, subject, text};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "I10",
    title: "machines have as many volumes as they may have",
    layer: Layer::Workload,
    explains: &[
        Explains { ids: &["H1", "E15"], scope: Scope::SameSubject },
        Explains { ids: &["I6"], scope: Scope::SameSubject },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, pod) in evidence.objects("Pod") {
        let Some(said) = refusal(pod) else { continue };
        let who = subject(pod);
        let repair = Repair::of(&[
            (
                "How many may each machine have, and how many has it?",
                "kubectl get csinodes -o yaml | grep -B3 count; kubectl get volumeattachments",
            ),
            ("Spread the pods with volumes over more machines, or add one", ""),
        ]);
        let told = format!("{who}: {said}");
        let finding = Finding::failure(who, item, Certainty::Proven, told, vec![index], repair);
        found.push(finding.on_node(text(&pod["spec"]["nodeName"])));
    }
    found
}

/// What the scheduler or the kubelet said, if it was this.
fn refusal(pod: &Value) -> Option<&str> {
    let status = &pod["status"];
    if status["reason"] == "VolumeAttachmentLimitExceeded" {
        return Some(text(&status["message"]));
    }
    let scheduled = condition(pod, "PodScheduled").filter(|scheduled| scheduled["status"] == "False")?;
    Some(text(&scheduled["message"])).filter(|message| message.contains("exceed max volume count"))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn both_refusals_are_found() {
        let waits = |message: &str| {
            let condition =
                json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]);
            pod("a", "db", json!({}), json!({"phase": "Pending", "conditions": condition}))
        };
        assert_eq!(found(&RULE, [waits("0/3 nodes are available: 3 node(s) exceed max volume count.")]).len(), 1);
        assert_eq!(found(&RULE, [waits("0/3 nodes are available: 3 Insufficient cpu.")]), [""; 0]);
        let refused = |reason: &str| {
            let message = "Node has reached its volume attachment limit, rejecting pod. unmounted volumes=[data]";
            pod("a", "db", json!({"nodeName": "one"}), json!({"phase": "Failed", "reason": reason, "message": message}))
        };
        assert_eq!(found(&RULE, [refused("VolumeAttachmentLimitExceeded")]).len(), 1);
        assert_eq!(found(&RULE, [refused("Evicted")]), [""; 0]);
    }
}
