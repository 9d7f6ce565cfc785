//! Everybody asks everybody, under all kinds of policies, in both families; the kernel answers as the model does.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kedge_netfilter::Protocol;
use kedge_policy::World;
use serde_json::{Value, json};

use crate::lab::{Lab, LabPod, MORE_PODS, Question, outside_address};
use crate::model::{End, Opening, allows};

const NODE: [&str; 4] = ["10.244.0.1", "192.0.2.2", "fd00:244::1", "fd00:2::2"];

/// What the model says.
fn expected(world: &World, question: Question) -> BTreeSet<(String, String)> {
    let pod = |pod: &LabPod| &world.pods[pod.namespace][pod.name];
    let pods = MORE_PODS.iter().map(|known| (known.name, End::Pod(pod(known)), known.address(question.ipv6)));
    let receivers: Vec<(&str, End<'_>, IpAddr)> =
        pods.chain([("outside", End::Outside, outside_address(question.ipv6))]).collect();
    let node: IpAddr = NODE[if question.ipv6 { 2 } else { 0 }].parse().unwrap();
    let mut reached = BTreeSet::new();
    for (sender, from, address) in receivers.iter().chain([&("node", End::Node, node)]) {
        for (receiver, to, target) in receivers.iter().filter(|(receiver, ..)| receiver != sender) {
            let opening = Opening {
                from: (*from, *address),
                to: (*to, *target),
                protocol: question.protocol,
                port: question.port,
            };
            if allows(world, opening) {
                reached.insert(((*sender).to_owned(), (*receiver).to_owned()));
            }
        }
    }
    reached
}

fn app(name: &str) -> Value {
    json!({"matchLabels": {"app": name}})
}

fn named(name: &str) -> Value {
    json!({"matchLabels": {"name": name}})
}

/// Sets of policies, each with the namespace that it is of.
fn cases() -> Vec<Vec<(&'static str, Value)>> {
    let deny_in = || json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    let deny_out = || json!({"podSelector": {}, "policyTypes": ["Egress"]});
    let to = |rule: Value| json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]});
    let from = |rule: Value| json!({"podSelector": {}, "ingress": [rule]});
    vec![
        vec![],
        vec![("shop", deny_in()), ("ops", deny_in()), ("free", deny_in())],
        vec![("shop", deny_out()), ("free", deny_out())],
        vec![("shop", deny_in()), ("shop", from(json!({"from": [{"podSelector": app("web")}]})))],
        vec![("shop", from(json!({"from": [{"namespaceSelector": named("ops"), "podSelector": app("log")}]})))],
        vec![("shop", from(json!({"from": [{"namespaceSelector": named("ops")}, {"podSelector": app("log")}]})))],
        vec![("ops", from(json!({"ports": [{"port": 80, "endPort": 81}]})))],
        vec![("ops", from(json!({"ports": [{"port": "second"}, {"port": "names", "protocol": "UDP"}]})))],
        vec![("shop", from(json!({"ports": [{"protocol": "UDP"}, {"protocol": "SCTP", "port": 7}]})))],
        vec![("shop", to(json!({"to": [{"namespaceSelector": {}}], "ports": [{"port": "second"}]})))],
        vec![
            (
                "shop",
                to(json!({"to": [
                    {"ipBlock": {"cidr": "10.244.0.0/24", "except": ["10.244.0.4/31"]}},
                    {"ipBlock": {"cidr": "fd00:244::/64", "except": ["fd00:244::4/127"]}},
                ]})),
            ),
            (
                "ops",
                from(json!({"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}, {"ipBlock": {"cidr": "fd00:2::1/128"}}]})),
            ),
        ],
        vec![
            ("free", to(json!({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}))),
            ("shop", from(json!({"from": [{"ipBlock": {"cidr": "::/0"}}]}))),
        ],
        vec![
            ("ops", to(json!({"to": [{"namespaceSelector": named("shop"), "podSelector": app("web")}]}))),
            (
                "shop",
                json!({"podSelector": app("web"), "ingress": [{"from": [{"namespaceSelector": {}, "podSelector": app("probe")}], "ports": [{"port": 80}]}]}),
            ),
            (
                "shop",
                json!({"podSelector": app("store"), "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}),
            ),
        ],
    ]
}

#[test]
fn the_kernel_answers_as_the_model_does() {
    if kedge_skip::skipped_without_root("the_kernel_answers_as_the_model_does") {
        return;
    }
    let lab = Lab::new(&MORE_PODS);
    let ports = [(Protocol::Tcp, 80), (Protocol::Tcp, 81), (Protocol::Udp, 53)];
    for policies in cases() {
        lab.apply(&policies);
        let world = lab.world(&policies);
        for (protocol, port) in ports {
            for ipv6 in [false, true] {
                let question = Question { protocol, port, ipv6 };
                let (seen, wanted) = (lab.matrix(question), expected(&world, question));
                let wrong: Vec<_> = seen.symmetric_difference(&wanted).collect();
                assert!(wrong.is_empty(), "{question:?} under {policies:?}: kernel and model differ in {wrong:?}");
            }
        }
    }
}
