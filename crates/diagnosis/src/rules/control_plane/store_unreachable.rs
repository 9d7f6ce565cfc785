//! A16: the API server does not start, because its store does not answer it.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::signs::{Sign, Told};
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &["kube-apiserver"],
    words: &[
        &["problem initializing API group", "context deadline exceeded"],
        &["Unable to create storage backend", "context deadline exceeded"],
        &["unable to create storage backend"],
        &["dial tcp", ":2379", "connect: connection refused"],
        &["failed to connect to", ":2379"],
        &["etcd does not answer within"],
    ],
    over: &["Serving securely", "the store in etcd is open"],
};

pub(super) const RULE: Rule = Rule {
    id: "A16",
    title: "the API server does not reach its store",
    layer: Layer::Api,
    explains: &[
        Explains { ids: &["A15", "A17", "H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["W1"], scope: Scope::ControlPlane },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = |_: &Told<'_>| {
        Repair::of(&[
            (
                "Leave the API server's manifest alone, and look at the store",
                "crictl ps -a --name etcd; crictl logs $(crictl ps -a -q --name etcd | head -1)",
            ),
            (
                "Does it answer with the API server's own certificate?",
                "curl --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/apiserver-etcd-client.crt --key /etc/kubernetes/pki/apiserver-etcd-client.key https://127.0.0.1:2379/health",
            ),
        ])
    };
    let tell = |told: &Told<'_>| format!("{} waits for its store: {}", told.source.subject(), told.text.trim());
    SIGN.found(evidence, Certainty::Likely, repair, tell)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_store_that_is_away_is_found_in_all_wordings() {
        check_lines(
            &RULE,
            &[
                (
                    "kube-apiserver",
                    r#"E0722 10:00:00.0 1 run.go:72] "command failed" err="problem initializing API group \"\" : context deadline exceeded""#,
                ),
                (
                    "kube-apiserver",
                    "F0722 10:00:00.0 1 storage_decorator.go:57] Unable to create storage backend: config (&{etcd3 /registry}), err (context deadline exceeded)",
                ),
                (
                    "kube-apiserver",
                    r#"W0722 10:00:00.0 1 logging.go:59] [core] grpc: addrConn.createTransport failed to connect to {Addr: "127.0.0.1:2379"}. Err: connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:2379: connect: connection refused""#,
                ),
                ("kube-apiserver", "Error: etcd does not answer within 10 s (https://127.0.0.1:2379)"),
            ],
            &[("kube-apiserver", "I0722 10:00:00.0 1 secure_serving.go:211] Serving securely on [::]:6443")],
        );
    }

    #[test]
    fn one_that_serves_by_now_is_well() {
        let refused = ago(line_of("kube-apiserver", "dial tcp 127.0.0.1:2379: connect: connection refused"), 60);
        let serves = ago(line_of("kube-apiserver", "Serving securely on [::]:6443"), 50);
        assert_eq!(found_among(&RULE, [refused, serves]), [""; 0]);
    }
}
