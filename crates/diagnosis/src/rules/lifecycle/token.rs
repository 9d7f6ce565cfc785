//! D13: the token with which a machine would join is unknown: it lives for a day, by the clock of the cluster.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::lifecycle::told_by_command;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "D13", title: "the token of a join has expired", layer: Layer::Api, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        ("See whether the clocks of both machines agree", "date -u"),
        ("On a control plane, make a new one", "kedge token create --print-join-command"),
        ("With kubeadm", "kubeadm token create --print-join-command"),
    ]);
    let forms: &[&[&str]] = &[&["token id", "is invalid for this cluster or it has expired"]];
    let meaning = "the cluster does not know the token: it was for a day, or it is another cluster's";
    told_by_command(evidence, forms, meaning, &repair)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_expired_token_is_found_by_both_programs_words() {
        let kubeadm = "couldn't validate the identity of the API Server: token id \"abcdef\" is invalid for this cluster or it has expired. Use \"kubeadm token create\"";
        let kedge = "token id \"abcdef\" is invalid for this cluster or it has expired. Use \"kedge token create\" on the control-plane node";
        for line in [kubeadm, kedge] {
            assert_eq!(found_among(&RULE, [pasted("kubeadm", line)]).len(), 1);
        }
        assert_eq!(
            found_among(
                &RULE,
                [pasted(
                    "kubeadm",
                    "could not find a JWS signature in the cluster-info ConfigMap for token ID \"abcdef\""
                )]
            ),
            [""; 0]
        );
    }
}
