//! G23: calico's plugin has a token that is no longer valid.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::network::sandbox::refused_networks;
use crate::rules::{Explains, Layer, Rule, Scope};

const FORMS: &[&[&str]] =
    &[&["connection is unauthorized: Unauthorized"], &["error getting ClusterInformation", "Unauthorized"]];

pub(super) const RULE: Rule = Rule {
    id: "G23",
    title: "the plugin of the pod network has an expired token",
    layer: Layer::Network,
    explains: &[Explains { ids: &["W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        (
            "calico's node agent writes the plugin's kubeconfig: start it again on that machine",
            "kubectl -n kube-system delete pod -l k8s-app=calico-node --field-selector spec.nodeName=NODE",
        ),
        ("If it comes back, look at the machine's clock: tokens are bound to time", "timedatectl"),
    ]);
    refused_networks(evidence, FORMS, &repair, |_| {
        "the API server refuses the token in /etc/cni/net.d/calico-kubeconfig, so calico's plugin makes no network for pods".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_refused_token_is_found() {
        for message in [
            "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \"x\": plugin type=\"calico\" failed (add): error getting ClusterInformation: connection is unauthorized: Unauthorized",
            "error killing pod: failed to \"KillPodSandbox\" for \"x\" with KillPodSandboxError: \"rpc error: code = Unknown desc = failed to destroy network for sandbox: plugin type=\\\"calico\\\" failed (delete): error getting ClusterInformation: connection is unauthorized: Unauthorized\"",
        ] {
            let reason = if message.starts_with("error killing") { "FailedKillPod" } else { "FailedCreatePodSandBox" };
            assert_eq!(found(&RULE, [event_of("Pod", "web", reason, message)]).len(), 1);
        }
        assert_eq!(found(&RULE, [event_of("Pod", "web", "Failed", "pull: 401 Unauthorized")]), [""; 0]);
    }
}
