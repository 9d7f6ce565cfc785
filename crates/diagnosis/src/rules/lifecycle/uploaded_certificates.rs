//! D11: the certificates that a further control plane fetches are gone: they are kept for two hours.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::lifecycle::told_by_command;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "D11", title: "the uploaded certificates have expired", layer: Layer::Api, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        ("On a control plane, upload them again", "kedge init phase upload-certs --upload-certs"),
        ("With kubeadm", "kubeadm init phase upload-certs --upload-certs"),
        ("Join with the new key, within two hours", "kedge token create --print-join-command --certificate-key KEY"),
    ]);
    let forms: &[&[&str]] = &[&["kubeadm-certs", "was not found"], &["kubeadm-certs", "might have expired"]];
    let meaning = "the Secret kubeadm-certs is not there: it is deleted two hours after init wrote it";
    told_by_command(evidence, forms, meaning, &repair)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_expired_secret_is_found_and_an_upload_is_not() {
        let line = "error downloading certs: error downloading the secret: Secret \"kubeadm-certs\" was not found in the \"kube-system\" Namespace. This Secret might have expired.";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", line)]).len(), 1);
        let upload =
            "[upload-certs] Storing the certificates in Secret \"kubeadm-certs\" in the \"kube-system\" Namespace";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", upload)]), [""; 0]);
    }
}
