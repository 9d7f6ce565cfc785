//! C5: nobody signs what a kubelet asks for.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::signs::{Sign, Told};
use crate::rules::{Layer, Rule};

const SIGN: Sign = Sign {
    programs: &["kubelet"],
    words: &[
        &["Failed while requesting a signed certificate from the control plane"],
        &["Failed while requesting a signed certificate from the master"],
        &["Reached backoff limit, still unable to rotate certs"],
    ],
    over: &["Certificate rotation detected, shutting down client connections"],
};

pub(super) const RULE: Rule =
    Rule { id: "C5", title: "nobody signs a kubelet's request", layer: Layer::Controllers, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = |_: &Told<'_>| {
        Repair::of(&[
            ("See what became of the request", "kubectl get csr"),
            (
                "Its approver and its signer live in the controller manager: does that run, and with all controllers?",
                "kubectl -n kube-system get pods -l component=kube-controller-manager",
            ),
            (
                "And may machines ask?",
                "kubectl get clusterrolebindings kubeadm:kubelet-bootstrap kubeadm:node-autoapprove-bootstrap kubeadm:node-autoapprove-certificate-rotation",
            ),
        ])
    };
    let tell = |told: &Told<'_>| format!("the kubelet says: {}", told.text.trim());
    let found = SIGN.found(evidence, Certainty::Likely, repair, tell);
    // The certificate of today still serves; what is over is C4's.
    found.into_iter().map(Finding::warning).collect()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_request_without_an_answer_is_found() {
        check_lines(
            &RULE,
            &[
                (
                    "kubelet",
                    r#"E0722 10:00:00.0 1 certificate_manager.go:562] "Failed while requesting a signed certificate from the control plane" err="cannot create certificate signing request: connection refused""#,
                ),
                (
                    "kubelet",
                    r#"E0722 10:00:00.0 1 certificate_manager.go:440] "Reached backoff limit, still unable to rotate certs" err="timed out waiting for the condition""#,
                ),
                (
                    "kubelet",
                    "E0722 10:00:00.0 1 certificate_manager.go:471] kubernetes.io/kube-apiserver-client-kubelet: Failed while requesting a signed certificate from the control plane: x",
                ),
            ],
            &[("kubelet", r#"I0722 10:00:00.0 1 certificate_manager.go:356] "Rotating certificates""#)],
        );
    }
}
