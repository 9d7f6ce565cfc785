//! B9: members or clients of the store refuse each other's certificates.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::etcd::{OF_THE_STORE, STORE};
use crate::rules::signs::{Sign, Told};
use crate::rules::{Layer, Rule};

/// A scan of ports and a client without a certificate leave such lines too: only those about certificates count, and
/// only in some number.
const OFTEN: usize = 3;
const SIGN: Sign = Sign {
    programs: STORE,
    words: &[
        &["rejected connection", "certificate has expired or is not yet valid"],
        &["rejected connection", "remote error: tls: bad certificate"],
        &["rejected connection", "tls: failed to verify certificate"],
        &["rejected connection", "tls: failed to verify client"],
        &["rejected connection", "does not match any of DNSNames"],
        &["rejected connection", "is valid for"],
        &["prober detected unhealthy status", "x509:"],
        &["health check for peer", "x509:"],
    ],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "B9",
    title: "the store refuses certificates, or its own are refused",
    layer: Layer::Etcd,
    explains: OF_THE_STORE,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let often = SIGN.told(evidence).into_iter().filter(|told| told.count >= OFTEN);
    let finding = |told: Told<'_>| {
        let repair = Repair::of(&[
            ("Compare the clocks first: a clock that is wrong looks the same", "chronyc tracking; date -u"),
            (
                "Then the store's certificates: their end, and their names",
                "for c in /etc/kubernetes/pki/etcd/*.crt; do openssl x509 -noout -subject -enddate -ext subjectAltName -in $c; done",
            ),
            (
                "Renew those that have ended",
                "kedge certs renew etcd-server; kedge certs renew etcd-peer; kedge certs renew apiserver-etcd-client",
            ),
            ("Restart etcd, and then the API server", ""),
        ]);
        let text = format!("{} refused {} connections, last: {}", told.source.subject(), told.count, told.text.trim());
        Finding::failure(told.source.subject(), told.item, Certainty::Likely, text, told.lines, repair)
    };
    often.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn refusals_are_found_when_they_go_on() {
        for text in [
            r#"{"level":"warn","msg":"rejected connection on client endpoint","error":"tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2026-01-01T00:00:00Z is after 2025-12-31T00:00:00Z"}"#,
            r#"{"level":"warn","msg":"rejected connection on peer endpoint","error":"remote error: tls: bad certificate"}"#,
            r#"2021-03-01 12:00:00.1 I | embed: rejected connection from "192.0.2.3:4711" (error "remote error: tls: bad certificate", ServerName "")"#,
        ] {
            let lines = |count: usize, age: i64| (0..count).map(move |_| ago(line_of("etcd", text), age));
            assert_eq!(found_among(&RULE, lines(3, 10)).len(), 1, "{text}");
            assert_eq!(found_among(&RULE, lines(1, 10)), [""; 0]);
            assert_eq!(found_among(&RULE, lines(5, 7200)), [""; 0]);
        }
    }

    #[test]
    fn a_scan_of_ports_is_not_this() {
        let text = r#"2021-03-01 12:00:00.1 I | embed: rejected connection from "192.0.2.3:4711" (error "EOF", ServerName "")"#;
        assert_eq!(found_among(&RULE, (0..20).map(|_| ago(line_of("etcd", text), 1))), [""; 0]);
    }
}
