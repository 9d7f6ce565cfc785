//! What policies become: the rules, as text.

use kedge_netfilter::Protocol;
use serde_json::{Value, json};

use super::*;
use crate::object::NamedPort;

fn pod(namespace: &str, name: &str, app: &str, ip: &str, is_local: bool) -> Pod {
    Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        ips: vec![ip.parse().unwrap()],
        ports: vec![NamedPort { name: "web".to_owned(), protocol: Protocol::Tcp, number: 8080 }],
        is_local,
    }
}

/// Two namespaces: shop with web (here) and store (elsewhere), ops with probe (here).
fn world() -> World {
    let mut world = World::default();
    for (name, team) in [("shop", "sales"), ("ops", "platform")] {
        world.namespaces.insert(name.to_owned(), [("team".to_owned(), team.to_owned())].into());
    }
    for pod in [
        pod("shop", "web", "web", "10.244.0.2", true),
        pod("shop", "store", "store", "10.244.1.2", false),
        pod("ops", "probe", "probe", "10.244.0.3", true),
    ] {
        let key = kedge_meta::ObjectKey::new(pod.namespace.clone(), pod.name.clone());
        world.put_pod(&key, Some(pod));
    }
    world
}

fn policy(spec: Value) -> Policy {
    let policy = json!({"metadata": {"namespace": "shop", "name": "p"}, "spec": spec});
    Policy::of(&serde_json::from_value(policy).unwrap())
}

/// Ingress rules for the pod web.
fn ingress(rules: Value) -> Vec<String> {
    let policy = policy(json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": rules}));
    let fragment = plan_policy(&world(), &policy, false);
    assert_eq!(fragment.chains.len(), 1, "{fragment:?}");
    fragment.chains.into_values().next().unwrap()
}

fn egress(rules: Value) -> Vec<String> {
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": rules});
    let fragment = plan_policy(&world(), &policy(spec), false);
    fragment.chains.into_values().next().unwrap()
}

#[test]
fn senders_and_ports() {
    let check = |rules: Value, expected: &[&str]| assert_eq!(ingress(rules), expected);
    check(json!([]), &[]);
    check(json!([{}]), &["accept"]);
    check(json!([{"from": [], "ports": []}]), &["accept"]);
    check(json!([{"from": [{"podSelector": {}}]}]), &["ip saddr { 10.244.0.2, 10.244.1.2 } accept"]);
    check(json!([{"from": [{"podSelector": {"matchLabels": {"app": "no"}}}]}]), &[]);
    check(json!([{"from": [{"namespaceSelector": {}}]}]), &["ip saddr { 10.244.0.2/31, 10.244.1.2 } accept"]);
    let platform = json!({"matchExpressions": [{"key": "team", "operator": "In", "values": ["platform"]}]});
    check(json!([{"from": [{"namespaceSelector": platform}]}]), &["ip saddr { 10.244.0.3 } accept"]);
    check(json!([{"from": [{"namespaceSelector": platform, "podSelector": {"matchLabels": {"app": "web"}}}]}]), &[]);
    check(
        json!([{"ports": [{"port": 80}, {"port": 8000, "endPort": 8010}, {"port": 53, "protocol": "UDP"}]}]),
        &["tcp dport { 80, 8000-8010 } accept", "udp dport { 53 } accept"],
    );
    check(json!([{"ports": [{"protocol": "SCTP"}]}]), &["meta l4proto sctp accept"]);
    check(json!([{"ports": [{"port": "web"}]}]), &["ip daddr { 10.244.0.2 } tcp dport 8080 accept"]);
    check(json!([{"ports": [{"port": "none"}]}]), &[]);
    check(
        json!([{"from": [{"podSelector": {"matchLabels": {"app": "store"}}}], "ports": [{"port": "web"}, {"port": 1}]}]),
        &[
            "ip saddr { 10.244.1.2 } tcp dport { 1 } accept",
            "ip saddr { 10.244.1.2 } ip daddr { 10.244.0.2 } tcp dport 8080 accept",
        ],
    );
}

#[test]
fn blocks_of_addresses() {
    let check = |rules: Value, expected: &[&str]| assert_eq!(ingress(rules), expected);
    check(
        json!([{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}, {"ipBlock": {"cidr": "192.0.2.128/25"}}]}]),
        &["ip saddr { 192.0.2.0/24 } accept"],
    );
    check(
        json!([{"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.1/32"]}}, {"podSelector": {}}]}]),
        &["ip saddr { 10.244.0.2, 10.244.1.2 } accept", "ip saddr 192.0.2.0/24 ip saddr != { 192.0.2.1 } accept"],
    );
    check(json!([{"from": [{"ipBlock": {"cidr": "fd00::/8"}}]}]), &[]);
    check(json!([{"from": [{"ipBlock": {"cidr": "nonsense"}}]}]), &[]);
}

#[test]
fn receivers() {
    let check = |rules: Value, expected: &[&str]| assert_eq!(egress(rules), expected);
    check(json!([{}]), &["goto check-ingress"]);
    check(
        json!([{"to": [{"podSelector": {"matchLabels": {"app": "store"}}}], "ports": [{"port": "web"}]}]),
        &["ip daddr { 10.244.1.2 } tcp dport 8080 goto check-ingress"],
    );
    check(
        json!([{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"port": 443}]}]),
        &["ip daddr 0.0.0.0/0 ip daddr != { 10.0.0.0/8 } tcp dport { 443 } goto check-ingress"],
    );
}

#[test]
fn pods_ask_every_policy_and_drop_the_rest() {
    let mut world = world();
    for (name, spec) in [
        ("a", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})),
        ("b", json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]})),
        ("c", json!({"podSelector": {"matchLabels": {"app": "store"}}})),
    ] {
        let mut policy = policy(spec);
        policy.name = name.to_owned();
        world.policies.insert(kedge_meta::ObjectKey::new("shop", name), policy);
    }
    let web = world.pods["shop"]["web"].clone();
    let fragment = plan_pod(&world, &web, false);
    let jumps: Vec<usize> = fragment.chains.values().map(Vec::len).collect();
    assert_eq!(jumps, [2, 3], "egress asks a, ingress asks a and b: {fragment:?}");
    assert!(fragment.chains.values().all(|lines| lines.last().unwrap().contains("drop")));
    let containers: Vec<&str> = fragment.elements.keys().map(|key| &*key.container).collect();
    assert_eq!(containers, [EGRESS_PODS, INGRESS_PODS]);
    assert!(plan_pod(&world, &web, true).is_empty(), "it has no IPv6 address");
    assert!(plan_pod(&world, &world.pods["ops"]["probe"], false).is_empty(), "nobody isolates it");
    assert!(plan_pod(&world, &world.pods["shop"]["store"], false).is_empty(), "it is elsewhere");
    assert!(plan_policy(&world, &world.policies[&kedge_meta::ObjectKey::new("shop", "c")], false).is_empty());
}

#[test]
fn directions_follow_the_types() {
    let check = |spec: Value, expected: (bool, bool)| {
        let policy = policy(spec);
        assert_eq!((policy.ingress.is_some(), policy.egress.is_some()), expected);
    };
    check(json!({"podSelector": {}}), (true, false));
    check(json!({"podSelector": {}, "egress": [{}]}), (true, true));
    check(json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]}), (false, true));
    check(json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]}), (true, false));
}
