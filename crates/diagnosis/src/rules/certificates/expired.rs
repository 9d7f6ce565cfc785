//! C1: a certificate has expired, or will soon.

use jiff::ToSpan;

use crate::evidence::Evidence;
use crate::facts::CertificateFact;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::certificates::{files, is_kubelets, said, served};
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Days before the end from which on it is said.
const SOON: i64 = 30;
const SIGN: Sign = Sign {
    programs: &[],
    words: &[
        &["certificate has expired or is not yet valid", "is after"],
        &["certificate expired: verification time"],
        &["invalid peer certificate: Expired"],
    ],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "C1",
    title: "a certificate has expired",
    layer: Layer::System,
    explains: &[
        Explains { ids: &["A15", "A16", "B9", "C4", "C5", "C13", "E1", "H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["W1"], scope: Scope::ControlPlane },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let Ok(soon) = evidence.gathered.checked_add((SOON * 24).hours()) else { return Vec::new() };
    let is_ending = |certificate: &CertificateFact| certificate.not_after < soon;
    // A kubelet's own has a rule of its own once it is over; one that is served and lies in a file is that file's matter.
    let of_files = files(evidence)
        .filter(|(_, _, certificate)| is_ending(certificate))
        .filter(|(_, _, certificate)| !(is_kubelets(&certificate.path) && certificate.not_after < evidence.gathered))
        .map(|(index, item, certificate)| (index, item, certificate, certificate.path.as_str()));
    let has_file = |path: &str| files(evidence).any(|(_, _, file)| file.path == path);
    let of_servers =
        served(evidence).filter(|(_, _, certificate, _)| is_ending(certificate) && !has_file(&certificate.path));
    let ending = of_files.chain(of_servers).map(|(index, item, certificate, name)| {
        let is_over = certificate.not_after < evidence.gathered;
        let verb = if is_over { "expired" } else { "expires" };
        let text = format!("{name} ({}) {verb} at {}", certificate.common_name, certificate.not_after);
        let subject = Subject::new("Certificate", name);
        let finding = Finding::failure(subject, item, Certainty::Proven, text, vec![index], repair(certificate));
        if is_over { finding } else { finding.warning() }
    });
    let mut found: Vec<Finding> = ending.collect();
    // What is served and over, with a file that is not, is what the others complain of.
    let is_known = served(evidence).any(|(_, _, certificate, _)| certificate.not_after < evidence.gathered);
    if !is_known && found.iter().all(|finding| finding.severity != Severity::Failure) {
        found.extend(told(evidence));
    }
    found
}

/// What others say of a certificate that was not looked at.
fn told(evidence: &Evidence) -> Vec<Finding> {
    let told = said(evidence, &SIGN).into_iter().map(|said| {
        let text = format!("{} says: {}", said.who, said.text);
        let repair = Repair::of(&[
            ("See which one it is", "kedge certs check-expiration"),
            ("Renew them, and restart what still holds the old ones", "kedge certs renew all"),
        ]);
        Finding::failure(said.subject, said.item, Certainty::Likely, text, said.proof, repair)
    });
    told.collect()
}

fn repair(certificate: &CertificateFact) -> Repair {
    if certificate.is_authority {
        return Repair::of(&[(
            "An authority's end is the end of all that it signed: rotate it by its documented steps",
            "",
        )]);
    }
    Repair::of(&[
        ("Renew the certificates", "kedge certs renew all || kubeadm certs renew all"),
        (
            "What runs still holds the old ones where it does not read them again: move the manifests of etcd, the API server, the controller manager and the scheduler out for 20 s, and back",
            "mkdir -p /root/m && mv /etc/kubernetes/manifests/*.yaml /root/m/ && sleep 20 && mv /root/m/*.yaml /etc/kubernetes/manifests/",
        ),
        ("Take the new kubeconfig", "cp /etc/kubernetes/admin.conf ~/.kube/config"),
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

    #[test]
    fn what_others_say_counts_where_no_file_was_seen() {
        check_lines(
            &RULE,
            &[
                (
                    "kube-apiserver",
                    r#"E0722 10:00:00.0 1 authentication.go:75] "Unable to authenticate the request" err="[x509: certificate has expired or is not yet valid: current time 2026-07-22T10:00:00Z is after 2026-07-21T10:00:00Z, verifying certificate SN=1 failed]""#,
                ),
                (
                    "kubectl",
                    "Unable to connect to the server: x509: certificate has expired or is not yet valid: current time 2026-07-22T10:00:00Z is after 2026-07-21T10:00:00Z",
                ),
            ],
            &[
                (
                    "kubectl",
                    "Unable to connect to the server: x509: certificate has expired or is not yet valid: current time 2026-07-22T10:00:00Z is before 2026-07-23T10:00:00Z",
                ),
                (
                    "kubelet",
                    "Failed to pull image: x509: certificate has expired or is not yet valid: current time 2026-07-22T10:00:00Z is after 2026-07-21T10:00:00Z",
                ),
                (
                    "kube-apiserver",
                    "failed calling webhook \"x\": x509: certificate has expired or is not yet valid: current time A is after B",
                ),
            ],
        );
        let error = "invalid peer certificate: certificate expired: verification time 1 (UNIX), but certificate is not valid after 0";
        let call = on("one", Fact::Call { target: "https://192.0.2.1:6443".to_owned(), error: Some(error.to_owned()) });
        assert_eq!(found_among(&RULE, [call]).len(), 1);
    }

    #[test]
    fn one_that_a_server_holds_without_a_file_is_found() {
        assert_eq!(found_among(&RULE, [serving("", "127.0.0.1:10257", "a", -400, -1)]).len(), 1);
        let file = certificate("/pki/a.crt", -1, 364);
        assert_eq!(found_among(&RULE, [serving("/pki/a.crt", "127.0.0.1:6443", "a", -400, -1), file]), [""; 0]);
    }
}
