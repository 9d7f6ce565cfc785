//! D14: nobody signs the ConfigMap by which a joining machine knows the cluster.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::lifecycle::told_by_command;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "D14", title: "cluster-info is not signed", layer: Layer::Controllers, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        (
            "The controller manager signs it, if it runs and its --controllers have bootstrapsigner",
            "kubectl -n kube-system get pods -l component=kube-controller-manager",
        ),
        (
            "And may read the tokens and write the ConfigMap",
            "kubectl -n kube-public get role,rolebinding | grep bootstrap-signer",
        ),
    ]);
    let forms: &[&[&str]] = &[&["could not find a JWS signature in the", "ConfigMap for token ID"]];
    let meaning =
        "the ConfigMap cluster-info has no signature of the token: the controller bootstrapsigner did not make one";
    told_by_command(evidence, forms, meaning, &repair)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_missing_signature_is_found_and_an_expired_token_is_not() {
        let line = "could not find a JWS signature in the cluster-info ConfigMap for token ID \"abcdef\"";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", line)]).len(), 1);
        let other = "token id \"abcdef\" is invalid for this cluster or it has expired";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", other)]), [""; 0]);
    }
}
