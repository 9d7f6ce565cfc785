//! D15: a new cluster has no pod network yet: its nodes are not ready and coredns waits, as it should be.
//!
//! Invariant: only where there never was one. A network that was there and went is E3's.

use serde_json::Value;

use crate::evidence::{Evidence, Place};
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::{condition, list, text};
use crate::rules::{Layer, Rule};

/// Names of what brings a pod network, in the names of its DaemonSets.
const NETWORKS: &[&str] = &[
    "antrea",
    "aws-node",
    "azure-cni",
    "calico",
    "canal",
    "cilium",
    "flannel",
    "kedge",
    "kindnet",
    "kube-router",
    "ovn",
    "weave",
];

pub(super) const RULE: Rule =
    Rule { id: "D15", title: "no pod network is installed yet", layer: Layer::Network, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let Some(nodes) = nodes_without(evidence) else { return Vec::new() };
    let Some((_, item, _)) = evidence.objects("Node").next() else { return Vec::new() };
    let repair = Repair::of(&[
        (
            "This is expected after init: install a pod network, with the cluster's range of pods",
            "kubectl apply -f NETWORK.yaml",
        ),
        ("coredns starts by itself then", "kubectl -n kube-system get pods -w"),
    ]);
    let text =
        "all nodes wait for a pod network, and none was ever installed; coredns waits for it, rightly".to_owned();
    let subject = Subject::new("Cluster", "pod network");
    let mut finding = Finding::failure(subject, item, Certainty::Likely, text, nodes, repair);
    (finding.severity, finding.place) = (Severity::Warning, Place::Cluster);
    vec![finding]
}

/// Whether nodes without a network, and pods that wait for them, are as expected.
pub(in crate::rules) fn is_expected(evidence: &Evidence) -> bool {
    nodes_without(evidence).is_some()
}

/// All nodes, if none has a network, none had one, and coredns waits.
fn nodes_without(evidence: &Evidence) -> Option<Vec<usize>> {
    let nodes: Vec<_> = evidence.objects("Node").collect();
    let is_new = !nodes.is_empty()
        && nodes.iter().all(|(_, _, node)| has_no_network(node))
        && !evidence.is_unseen("daemonsets")
        && !evidence.objects("DaemonSet").any(|(_, _, set)| is_network(set))
        && !evidence.objects("Pod").any(|(_, _, pod)| is_network(pod) || had_network(pod))
        && evidence.objects("Pod").any(|(_, _, pod)| is_waiting_dns(pod));
    is_new.then(|| nodes.iter().map(|(index, ..)| *index).collect())
}

fn has_no_network(node: &Value) -> bool {
    condition(node, "Ready").is_some_and(|ready| {
        let message = text(&ready["message"]);
        ready["status"] == "False"
            && (message.contains("NetworkPluginNotReady") || message.contains("cni plugin not initialized"))
    })
}

fn is_network(object: &Value) -> bool {
    NETWORKS.iter().any(|name| text(&object["metadata"]["name"]).contains(name))
}

fn had_network(pod: &Value) -> bool {
    pod["spec"]["hostNetwork"] != true && list(&pod["status"]["podIPs"]).next().is_some()
}

fn is_waiting_dns(pod: &Value) -> bool {
    pod["metadata"]["labels"]["k8s-app"] == "kube-dns" && pod["status"]["phase"] == "Pending"
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::diagnosis::diagnose;
    use crate::finding::Severity;
    use crate::rules::fixtures::*;

    fn fresh() -> Vec<Value> {
        let message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized";
        let refused = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 node(s) had untolerated taint(s). no new claims to deallocate."}]);
        let mut dns =
            old(pod("kube-system", "coredns-1", json!({}), json!({"phase": "Pending", "conditions": refused})));
        dns["metadata"]["labels"] = json!({"k8s-app": "kube-dns"});
        vec![node("one", json!([{"type": "Ready", "status": "False", "message": message}])), dns]
    }

    #[test]
    fn a_fresh_cluster_is_told_the_next_step_and_nothing_else() {
        let item =
            |object| Item { time: None, place: Place::Cluster, origin: String::new(), fact: Fact::Object(object) };
        let items = fresh().into_iter().map(item).collect();
        let diagnosis = diagnose(&Evidence { gathered: now(), items, unseen: Vec::new() });
        let causes: Vec<_> = diagnosis.causes.iter().map(|cause| (cause.id, cause.severity)).collect();
        assert_eq!(causes, [("D15", Severity::Warning)]);
        assert_eq!(found(&RULE, fresh()).len(), 1);
    }

    #[test]
    fn a_network_that_went_is_something_else() {
        let mut objects = fresh();
        objects.push(json!({"kind": "DaemonSet", "metadata": {"namespace": "kube-system", "name": "calico-node"}}));
        assert_eq!(found(&RULE, objects), [""; 0]);
        let mut objects = fresh();
        objects.push(pod("a", "web", json!({}), json!({"phase": "Running", "podIPs": [{"ip": "10.244.0.2"}]})));
        assert_eq!(found(&RULE, objects), [""; 0]);
        assert_eq!(found(&RULE, [node("one", json!([{"type": "Ready", "status": "True"}]))]), [""; 0]);
    }
}
