//! C9: a certificate is not valid yet, which means that the clock is wrong.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::certificates::said;
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &[],
    words: &[
        &["certificate has expired or is not yet valid", "is before"],
        &["certificate not valid yet: verification time"],
        &["invalid peer certificate: NotValidYet"],
    ],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "C9",
    title: "the clock is behind",
    layer: Layer::Hardware,
    explains: &[
        Explains {
            ids: &["A15", "A16", "B9", "C1", "C3", "C4", "C5", "D13", "E1", "F11", "H2", "H3"],
            scope: Scope::Anywhere,
        },
        Explains { ids: &["W1"], scope: Scope::ControlPlane },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let subject = || Subject::new("Setting", "clock");
    let early: Vec<_> =
        evidence.certificates().filter(|(_, _, certificate)| certificate.not_before > evidence.gathered).collect();
    if let Some((_, item, first)) = early.first() {
        let text = format!(
            "it is {} by this machine's clock, and {} is valid from {} on",
            evidence.gathered, first.path, first.not_before
        );
        let proof = early.iter().map(|(index, _, _)| *index).collect();
        return vec![Finding::failure(subject(), item, Certainty::Likely, text, proof, repair())];
    }
    let told = said(evidence, &SIGN).into_iter().map(|said| {
        let text = format!("{} says: {}", said.who, said.text);
        Finding::failure(subject(), said.item, Certainty::Likely, text, said.proof, repair())
    });
    told.collect()
}

fn repair() -> Repair {
    Repair::of(&[
        ("Set the clock before anything is done about certificates", "chronyc makestep"),
        ("See that it stays right", "timedatectl status"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_certificate_of_tomorrow_is_found_and_one_of_yesterday_is_not() {
        assert_eq!(
            found_among(&RULE, [certificate("/pki/a.crt", 1, 365), certificate("/pki/b.crt", -1, 365)]).len(),
            1
        );
        assert_eq!(found_among(&RULE, [certificate("/pki/b.crt", -1, 365)]), [""; 0]);
    }

    #[test]
    fn what_others_say_is_found() {
        check_lines(
            &RULE,
            &[(
                "kubelet",
                r#"Get "https://192.0.2.1:6443": x509: certificate has expired or is not yet valid: current time 2026-07-22T10:00:00Z is before 2026-07-23T10:00:00Z"#,
            )],
            &[(
                "kubelet",
                r#"Get "https://192.0.2.1:6443": x509: certificate has expired or is not yet valid: current time 2026-07-22T10:00:00Z is after 2026-07-21T10:00:00Z"#,
            )],
        );
    }
}
