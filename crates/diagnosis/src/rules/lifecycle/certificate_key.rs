//! D12: the certificates of the control plane were fetched, and the key does not open them.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::lifecycle::told_by_command;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "D12",
    title: "the certificate key is not the one that was used",
    layer: Layer::Api,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        (
            "On a control plane, upload them anew: the old ones are replaced",
            "kedge init phase upload-certs --upload-certs",
        ),
        ("With kubeadm", "kubeadm init phase upload-certs --upload-certs"),
        ("Join with the key that it prints, with --certificate-key", ""),
    ]);
    let forms: &[&[&str]] = &[&["error decoding secret data with provided key"], &["error decoding certificate key"]];
    let meaning =
        "--certificate-key is not the key with which the certificates in the Secret kubeadm-certs were sealed";
    told_by_command(evidence, forms, meaning, &repair)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_wrong_key_is_found_and_a_join_that_came_through_is_not() {
        let wrong = || {
            pasted(
                "kubeadm",
                "error: error decoding secret data with provided key: cipher: message authentication failed",
            )
        };
        assert_eq!(found_among(&RULE, [wrong()]).len(), 1);
        let joined =
            pasted("kubeadm", "This node has joined the cluster and a new control plane instance was created:");
        assert_eq!(found_among(&RULE, [wrong(), joined]), [""; 0]);
        assert_eq!(
            found_among(&RULE, [pasted("kubeadm", "[download-certs] Saving the certificates to the folder")]),
            [""; 0]
        );
    }
}
