//! E15: a kubelet refused a pod that was given to it.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{is_older_than, list, subject, text};
use crate::rules::{Layer, Rule};

/// Seconds for which a refused pod counts where a controller makes another one in its place.
const SPAN: i64 = 600;

pub(super) const RULE: Rule =
    Rule { id: "E15", title: "a kubelet refuses a pod", layer: Layer::Workload, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let refused = evidence.objects("Pod").filter(|(_, _, pod)| {
        pod["status"]["phase"] == "Failed"
            && is_refusal(text(&pod["status"]["reason"]))
            && (!is_replaced(pod) || !is_older_than(pod, SPAN, evidence.gathered))
    });
    let found = refused.map(|(index, item, pod)| {
        let (subject, node) = (subject(pod), text(&pod["spec"]["nodeName"]));
        let repair = Repair::of(&[
            ("See what the node has left", &format!("kubectl describe node {node}")),
            ("Ask for less, free some of it, or leave the choice of the node to the scheduler", ""),
            (
                "Remove the pod: it does not come back by itself",
                &format!("kubectl -n {} delete pod {}", subject.namespace, subject.name),
            ),
        ]);
        let told = format!(
            "{subject} was refused by {node}: {} {}",
            text(&pod["status"]["reason"]),
            text(&pod["status"]["message"])
        );
        Finding::failure(subject, item, Certainty::Proven, told, vec![index], repair).on_node(node)
    });
    found.collect()
}

fn is_refusal(reason: &str) -> bool {
    reason.starts_with("OutOf")
        || matches!(
            reason,
            "UnexpectedAdmissionError"
                | "NodeAffinity"
                | "NodePorts"
                | "InvalidNodeInfo"
                | "PodLevelResourcesNotAdmittedReason"
        )
}

/// Whether a controller makes another one in its place.
fn is_replaced(pod: &Value) -> bool {
    list(&pod["metadata"]["ownerReferences"]).any(|owner| owner["controller"] == true && owner["kind"] != "Node")
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn refused(reason: &str) -> Value {
        pod(
            "a",
            "web",
            json!({"nodeName": "one"}),
            json!({"phase": "Failed", "reason": reason, "message": "Pod was rejected"}),
        )
    }

    #[test]
    fn refusals_are_found() {
        for reason in ["OutOfcpu", "OutOfmemory", "OutOfpods", "UnexpectedAdmissionError"] {
            assert_eq!(found(&RULE, [refused(reason)]).len(), 1, "{reason}");
        }
        assert_eq!(found(&RULE, [refused("Evicted")]), [""; 0]);
    }

    #[test]
    fn one_that_was_replaced_long_ago_is_of_the_past() {
        let mut pod = old(refused("OutOfcpu"));
        assert_eq!(found(&RULE, [pod.clone()]).len(), 1);
        pod["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "controller": true}]);
        assert_eq!(found(&RULE, [pod]), [""; 0]);
    }
}
