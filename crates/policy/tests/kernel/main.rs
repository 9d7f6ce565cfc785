//! Policies in the kernel: who reaches whom, in network namespaces that the test makes for itself. Needs root and nft;
//! where one is missing, the test says that it was skipped.

#![allow(clippy::unwrap_used)]

mod established;
mod lab;
mod matrix;
mod model;

use serde_json::json;

use lab::{Lab, PODS};

#[test]
fn policies_decide_who_reaches_whom() {
    if kedge_skip::skipped_without_root("policies_decide_who_reaches_whom") {
        return;
    }
    let lab = Lab::new(&PODS);
    let everyone = [
        "web: log probe store node outside",
        "store: log probe web node outside",
        "probe: log store web node outside",
        "log: probe store web node outside",
        "outside: log probe store web node",
    ];
    lab.apply(&[]);
    assert_eq!(matrix(&lab, 80), everyone);

    // Nobody into shop; the node itself always may.
    lab.apply(&[("shop", json!({"podSelector": {}}))]);
    let closed = ["web: node", "store: node", everyone[2], everyone[3], everyone[4]];
    assert_eq!(matrix(&lab, 80), closed);

    // From ops only, and only on the port that the receiver calls so; policies add up.
    lab.apply(&[
        ("shop", json!({"podSelector": {}})),
        (
            "shop",
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{
                "from": [{"namespaceSelector": {"matchLabels": {"name": "ops"}}}],
                "ports": [{"port": "second"}],
            }]}),
        ),
    ]);
    assert_eq!(matrix(&lab, 80), closed);
    assert_eq!(matrix(&lab, 81)[..2], ["web: log probe node", "store: node"]);

    // Out of ops: the web only, and nothing outside but this address.
    lab.apply(&[(
        "ops",
        json!({"podSelector": {"matchLabels": {"app": "probe"}}, "policyTypes": ["Egress"], "egress": [
            {"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 80, "endPort": 80}]},
            {"to": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}], "ports": [{"port": 81}]},
        ]}),
    )]);
    let without_probe = ["store: log web node outside", everyone[2], "log: store web node outside"];
    assert_eq!(matrix(&lab, 80)[1..4], without_probe);
    assert_eq!(matrix(&lab, 80)[0], everyone[0]);
    assert_eq!(matrix(&lab, 80)[4], "outside: log store web node");
    assert_eq!(matrix(&lab, 81)[4], everyone[4]);

    // A sender that may, to a receiver that may not: both are asked.
    lab.apply(&[
        ("ops", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]})),
        (
            "shop",
            json!({"podSelector": {"matchLabels": {"app": "store"}}, "ingress": [{"from": [{"podSelector": {}}]}]}),
        ),
    ]);
    assert_eq!(matrix(&lab, 80), [everyone[0], "store: web node", everyone[2], everyone[3], everyone[4]]);

    lab.apply(&[]);
    assert_eq!(matrix(&lab, 80), everyone);
}

/// Who reaches whom on a TCP port: one line a receiver, with the senders that got an answer.
fn matrix(lab: &Lab, port: u16) -> Vec<String> {
    let reached = lab.matrix(lab::Question { protocol: kedge_netfilter::Protocol::Tcp, port, ipv6: false });
    let receivers = PODS.iter().map(|pod| pod.name).chain(["outside"]);
    let senders = ["log", "probe", "store", "web", "node", "outside"];
    let line = |receiver: &str| {
        let reaching: Vec<&str> = senders
            .into_iter()
            .filter(|sender| reached.contains(&((*sender).to_owned(), receiver.to_owned())))
            .collect();
        format!("{receiver}: {}", reaching.join(" "))
    };
    receivers.map(line).collect()
}
