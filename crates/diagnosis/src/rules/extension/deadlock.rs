//! H6: a webhook must be asked about every pod, its own pods need the network, and the network's pods need the webhook.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{condition, text};
use crate::rules::extension::webhook::called;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Namespaces in which pod networks run.
const OF_NETWORKS: [&str; 6] = ["kube-system", "calico-system", "tigera-operator", "kube-flannel", "cilium", "antrea"];

pub(super) const RULE: Rule = Rule {
    id: "H6",
    title: "a webhook keeps the pod network from starting, which it needs itself",
    layer: Layer::Network,
    explains: &[Explains { ids: &["E3", "H4", "H5"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let without: Vec<usize> = evidence
        .objects("Node")
        .filter(|(_, _, node)| {
            let message = condition(node, "Ready").map_or("", |ready| text(&ready["message"]));
            message.contains("NetworkPluginNotReady") || message.contains("cni plugin not initialized")
        })
        .map(|(index, _, _)| index)
        .collect();
    let refused = evidence.objects("Event").find_map(|(index, _, event)| {
        let object = &event["involvedObject"];
        let is_of_network = OF_NETWORKS.contains(&text(&object["namespace"])) && object["kind"] == "DaemonSet";
        let name = called(text(&event["message"])).filter(|_| is_of_network)?;
        Some((index, name, text(&object["name"])))
    });
    let (Some((index, webhook, set)), Some(first)) = (refused, without.first()) else { return Vec::new() };
    let told = format!(
        "the webhook {webhook} does not answer and must be asked about the pods of {set}, without which {} machines have no pod network",
        without.len()
    );
    let repair = Repair::of(&[
        (
            "Keep the webhook's configuration",
            "kubectl get mutatingwebhookconfigurations,validatingwebhookconfigurations -o yaml > webhooks.yaml",
        ),
        ("Take it away, so that the network starts", "kubectl delete validatingwebhookconfiguration NAME"),
        (
            "When its own pods run, bring it back with a namespaceSelector that leaves the network's namespace out",
            "kubectl apply -f webhooks.yaml",
        ),
    ]);
    let item = &evidence.items[*first];
    let proof = [index].into_iter().chain(without.iter().copied()).collect();
    let mut finding = Finding::failure(Subject::new("Webhook", webhook), item, Certainty::Proven, told, proof, repair);
    finding.place = crate::evidence::Place::Cluster;
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn refused(namespace: &str) -> Value {
        let message = "Error creating: Internal error occurred: failed calling webhook \"v.example.com\": failed to call webhook: Post \"https://v.a.svc:443/\": dial tcp 10.96.0.9:443: connect: connection refused";
        let mut event = event_of("DaemonSet", "calico-node", "FailedCreate", message);
        event["involvedObject"]["namespace"] = json!(namespace);
        event
    }

    #[test]
    fn a_network_that_waits_for_a_webhook_is_found() {
        let without = node(
            "one",
            json!([{"type": "Ready", "status": "False", "message": "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady"}]),
        );
        let ready =
            node("one", json!([{"type": "Ready", "status": "True", "message": "kubelet is posting ready status"}]));
        assert_eq!(found(&RULE, [without.clone(), refused("kube-system")]).len(), 1);
        assert_eq!(found(&RULE, [ready, refused("kube-system")]), [""; 0]);
        assert_eq!(found(&RULE, [without.clone(), refused("shop")]), [""; 0]);
        assert_eq!(found(&RULE, [without]), [""; 0]);
    }
}
