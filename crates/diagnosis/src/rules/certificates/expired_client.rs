//! C4: a kubelet runs with a certificate that has ended: its rotation did not happen.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::signs::{Sign, Told};
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &["kubelet"],
    words: &[&["The currently active client certificate has expired"]],
    over: &["Certificate rotation detected, shutting down client connections"],
};

pub(super) const RULE: Rule = Rule {
    id: "C4",
    title: "a kubelet's certificate ended while it ran",
    layer: Layer::Kubelet,
    explains: &[Explains { ids: &["E1", "E2", "E6"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = |told: &Told<'_>| {
        let advice = match told.text.contains("not responsive") {
            true => "Bring the API server back first: nobody else renews it",
            false => "The API server answers: see whether its request was approved and signed",
        };
        Repair::of(&[
            (advice, "kubectl get csr"),
            ("Approve what is asked for, if you know the machine", "kubectl certificate approve NAME"),
            ("Then restart the kubelet", "systemctl restart kubelet"),
        ])
    };
    let tell = |told: &Told<'_>| format!("the kubelet says: {}", told.text.trim());
    SIGN.found(evidence, Certainty::Proven, repair, tell)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn both_wordings_are_found() {
        check_lines(
            &RULE,
            &[
                (
                    "kubelet",
                    r#"E0722 10:00:00.0 1 transport.go:133] "The currently active client certificate has expired, but the server is not responsive. A restart may be necessary to retrieve new initial credentials.""#,
                ),
                (
                    "kubelet",
                    r#"E0722 10:00:00.0 1 transport.go:130] "The currently active client certificate has expired and the server is responsive, exiting.""#,
                ),
            ],
            &[(
                "kubelet",
                r#"I0722 10:00:00.0 1 transport.go:145] "Certificate rotation detected, shutting down client connections to start using new credentials""#,
            )],
        );
    }
}
