//! D16: a pod waits because every node that could take it is a control plane, which takes no work.
//!
//! Computed from taints and tolerations: the scheduler's words for it changed over the versions.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{condition, is_leaving, list, subject, text};
use crate::rules::{Explains, Layer, Rule, Scope};

const TAINTS: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

pub(super) const RULE: Rule = Rule {
    id: "D16",
    title: "only control planes are there, and they take no work",
    layer: Layer::Controllers,
    explains: &[Explains { ids: &["H1"], scope: Scope::SameSubject }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let nodes: Vec<(usize, &Value)> = evidence.objects("Node").map(|(index, _, node)| (index, node)).collect();
    // A node that is not ready has a taint of its own, and is another trouble.
    if nodes.is_empty() || !nodes.iter().all(|(_, node)| is_control_plane_only(node)) {
        return Vec::new();
    }
    let refused = evidence.objects("Pod").filter(|(_, _, pod)| is_refused(pod) && !is_leaving(pod) && !tolerates(pod));
    let found = refused.map(|(index, item, pod)| {
        let subject = subject(pod);
        let repair = Repair::of(&[
            (
                "Let control planes take work, as on a cluster of one machine",
                "kubectl taint nodes --all node-role.kubernetes.io/control-plane-",
            ),
            ("Or join a worker", "kedge token create --print-join-command"),
        ]);
        let text = format!("{subject} does not tolerate the taint of control planes, and no other node is there");
        let mut evidence = vec![index];
        evidence.extend(nodes.iter().map(|(index, _)| *index).take(3));
        Finding::failure(subject, item, Certainty::Proven, text, evidence, repair)
    });
    found.collect()
}

fn is_control_plane_only(node: &Value) -> bool {
    let mut taints = list(&node["spec"]["taints"]).filter(|taint| taint["effect"] != "PreferNoSchedule");
    taints.all(|taint| TAINTS.contains(&text(&taint["key"])))
        && list(&node["spec"]["taints"]).any(|taint| TAINTS.contains(&text(&taint["key"])))
}

fn is_refused(pod: &Value) -> bool {
    condition(pod, "PodScheduled")
        .is_some_and(|scheduled| scheduled["status"] == "False" && scheduled["reason"] == "Unschedulable")
}

fn tolerates(pod: &Value) -> bool {
    list(&pod["spec"]["tolerations"]).any(|toleration| {
        let key = text(&toleration["key"]);
        (key.is_empty() && toleration["operator"] == "Exists") || TAINTS.contains(&key)
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn waiting(tolerations: Value) -> Value {
        // Neither the words of 1.32 nor those of 1.36 are read.
        let conditions = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]);
        pod("a", "web", json!({"tolerations": tolerations}), json!({"phase": "Pending", "conditions": conditions}))
    }

    fn tainted(key: &str) -> Value {
        let mut node = node("one", json!([{"type": "Ready", "status": "True"}]));
        node["spec"] = json!({"taints": [{"key": key, "effect": "NoSchedule"}]});
        node
    }

    #[test]
    fn a_cluster_of_control_planes_alone_is_found() {
        for key in super::TAINTS {
            assert_eq!(found(&RULE, [tainted(key), waiting(json!([]))]).len(), 1);
        }
    }

    #[test]
    fn other_taints_tolerations_and_workers_are_something_else() {
        let key = super::TAINTS[0];
        assert_eq!(found(&RULE, [tainted("gpu"), waiting(json!([]))]), [""; 0]);
        assert_eq!(found(&RULE, [tainted(key), waiting(json!([{"operator": "Exists"}]))]), [""; 0]);
        assert_eq!(found(&RULE, [tainted(key), node("two", json!([])), waiting(json!([]))]), [""; 0]);
    }
}
