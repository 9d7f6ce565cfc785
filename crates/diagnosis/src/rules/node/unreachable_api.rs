//! E1: the kubelet of a machine cannot reach the API server, and what the error says of why.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::lines::{is_of_kubelet, one_of_each_machine, says, told_within};
use crate::rules::{Explains, Layer, Rule, Scope};

/// A kubelet that cannot reach it says so several times a minute.
const SPAN: i64 = 180;

pub(super) const RULE: Rule = Rule {
    id: "E1",
    title: "the kubelet cannot reach the API server",
    layer: Layer::Api,
    explains: &[Explains { ids: &["A20", "E2"], scope: Scope::SameNode }],
    find,
};

const FORMS: &[&[&str]] = &[
    &["Failed to ensure lease exists, will retry"],
    &["failed to ensure lease exists, will retry"],
    &["Failed to update lease"],
    &["failed to update lease"],
    &["Error updating node status, will retry"],
    &["Unable to update node status"],
    &["Unable to register node with API server"],
    &["Unable to write event"],
    &["Failed to watch", "dial tcp"],
    &["the API server does not answer"],
];

/// What the errors mean: words of them, and a sentence with its advice.
const CAUSES: &[(&[&str], &str, &str)] = &[
    (
        &["connection refused"],
        "nothing listens there: the API server does not run",
        "On the control plane: see why it does not run",
    ),
    (
        &["no such host", "server misbehaving"],
        "the name of the endpoint cannot be resolved",
        "See what the name resolves to, or name it in /etc/hosts",
    ),
    (
        &["x509"],
        "the certificate is not accepted",
        "See which certificate is served, until when, and whether the clocks agree",
    ),
    (
        &["i/o timeout", "no route to host", "network is unreachable"],
        "packets do not arrive: a firewall, a route or a balancer",
        "See where they end: nc -vz ADDRESS 6443",
    ),
    (
        &["Unauthorized", "forbidden"],
        "the API server does not accept who the kubelet says it is",
        "See the certificate's name: openssl x509 -noout -subject -in /var/lib/kubelet/pki/kubelet-client-current.pem",
    ),
    (
        &["TLS handshake timeout", "deadline exceeded", "Client.Timeout"],
        "the answer takes too long: the server has too much to do, or large packets are lost",
        "See the server's load, and whether large packets pass: ping -M do -s 1472 ADDRESS",
    ),
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let told = told_within(
        evidence,
        SPAN,
        |line| is_of_kubelet(line) && says(&line.text, FORMS),
        |line| says(&line.text, &[&["Successfully registered node"], &["the API server answers again"]]),
    );
    one_of_each_machine(told.iter().map(|told| {
        let line = told.line.text.trim();
        let cause = CAUSES.iter().find(|(words, ..)| words.iter().any(|word| line.contains(word)));
        let (why, advice) =
            cause.map_or(("it does not say why", "Read the kubelet's log"), |(_, why, advice)| (*why, *advice));
        let repair = Repair::of(&[
            (advice, ""),
            (
                "See the errors of the last minutes",
                "journalctl -u kubelet --since -5min --no-pager | grep -E 'lease|node status|Failed to watch'",
            ),
            ("Workloads of this machine go on meanwhile: do not restart it", ""),
        ]);
        let text = format!("from here the API server cannot be used: {why}");
        let certainty = if cause.is_some() { Certainty::Likely } else { Certainty::Possible };
        told.finding(Subject::machine(&told.item.place), certainty, text, repair)
    }))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn the_error_says_which_cause_it_is() {
        let line = |error: &str| {
            let text = format!(
                "E1228 16:08:57.706615     228 controller.go:195] \"Failed to update lease\" err=\"Put \\\"https://control-plane:6443/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/worker?timeout=10s\\\": {error}\""
            );
            ago(logged("kubelet", &text), 20)
        };
        let refused = found_among(&RULE, [line("dial tcp 172.18.0.4:6443: connect: connection refused")]);
        assert!(refused[0].contains("nothing listens there"), "{refused:?}");
        let name = found_among(&RULE, [line("dial tcp: lookup control-plane on 192.168.65.254:53: no such host")]);
        assert!(name[0].contains("cannot be resolved"), "{name:?}");
        let clock = found_among(
            &RULE,
            [line("tls: failed to verify certificate: x509: certificate has expired or is not yet valid")],
        );
        assert!(clock[0].contains("certificate"), "{clock:?}");
    }

    #[test]
    fn old_lines_other_words_and_kedges_own_are_told_apart() {
        let watch = "E1228 reflector.go:150] k8s.io/client-go/informers/factory.go:160: Failed to watch *v1.RuntimeClass: Get \"https://cp:6443/x\": dial tcp: lookup cp: no such host";
        assert_eq!(found_among(&RULE, [ago(logged("kubelet", watch), 20)]).len(), 1);
        assert_eq!(
            found_among(&RULE, [ago(logged("kubelet", watch), 600), unit("kubelet", "active", "enabled")]),
            [""; 0]
        );
        let own = "2026-11-21T13:00:00Z WARN kedge_kubelet::manager: the API server does not answer; going on with the last known pods pods=3";
        assert_eq!(found_among(&RULE, [ago(logged("kubelet", own), 20)]).len(), 1);
        assert_eq!(
            found_among(&RULE, [logged("kubelet", "I0722 kubelet_getters.go:176] \"Pod status updated\"")]),
            [""; 0]
        );
    }
}
