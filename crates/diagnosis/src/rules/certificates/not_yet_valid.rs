//! C9: a certificate is not valid yet, which means that the clock is wrong.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "C9",
    title: "the clock is behind",
    layer: Layer::Hardware,
    explains: &[Explains { ids: &["A15", "C1", "H2", "H3"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let early: Vec<_> =
        evidence.certificates().filter(|(_, _, certificate)| certificate.not_before > evidence.gathered).collect();
    let Some((_, item, first)) = early.first() else { return Vec::new() };
    let repair = Repair::of(&[
        ("Set the clock before anything is done about certificates", "chronyc makestep"),
        ("See that it stays right", "timedatectl status"),
    ]);
    let text = format!(
        "it is {} by this machine's clock, and {} is valid from {} on",
        evidence.gathered, first.path, first.not_before
    );
    let proof = early.iter().map(|(index, _, _)| *index).collect();
    vec![Finding::failure(Subject::new("Setting", "clock"), item, Certainty::Likely, text, proof, repair)]
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
}
