//! C1: a certificate has expired, or will soon.

use jiff::ToSpan;

use crate::evidence::Evidence;
use crate::facts::CertificateFact;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::{Explains, Layer, Rule, Scope};

/// Days before the end from which on it is said.
const SOON: i64 = 30;

pub(super) const RULE: Rule = Rule {
    id: "C1",
    title: "a certificate has expired",
    layer: Layer::System,
    explains: &[Explains { ids: &["A15", "H2", "H3"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let Ok(soon) = evidence.gathered.checked_add((SOON * 24).hours()) else { return Vec::new() };
    let ending = evidence.certificates().filter(|(_, _, certificate)| certificate.not_after < soon);
    let ending = ending.map(|(index, item, certificate)| {
        let is_over = certificate.not_after < evidence.gathered;
        let (verb, severity) = match is_over {
            true => ("expired", Severity::Failure),
            false => ("expires", Severity::Warning),
        };
        let text = format!("{} ({}) {verb} at {}", certificate.path, certificate.common_name, certificate.not_after);
        let subject = Subject::new("Certificate", &certificate.path);
        let mut finding = Finding::failure(subject, item, Certainty::Proven, text, vec![index], repair(certificate));
        finding.severity = severity;
        finding
    });
    ending.collect()
}

fn repair(certificate: &CertificateFact) -> Repair {
    if certificate.is_authority {
        return Repair::of(&[(
            "An authority's end is the end of all that it signed: rotate it by its documented steps",
            "",
        )]);
    }
    Repair::of(&[
        ("Renew the certificates", "kedge certs renew all"),
        ("What runs still holds the old ones where it does not read them again: restart the static pods", ""),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn expired_ones_fail_and_ending_ones_warn() {
        let texts = found_among(
            &RULE,
            [
                certificate("/pki/old.crt", -400, -35),
                certificate("/pki/soon.crt", -400, 10),
                certificate("/pki/new.crt", -1, 364),
            ],
        );
        assert_eq!(texts.len(), 2);
        assert!(
            texts[0].contains("old.crt (x) expired at") && texts[1].contains("soon.crt (x) expires at"),
            "{texts:?}"
        );
    }
}
