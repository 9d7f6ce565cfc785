//! Policies in the kernel: who reaches whom, in network namespaces that the test makes for itself. Needs root and nft;
//! where one is missing, the test says that it was skipped.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use kedge_meta::ObjectKey;
use kedge_netfilter::{Nft, Protocol, TableKeeper};
use kedge_netns::Namespace;
use kedge_policy::{NamedPort, Pod, Policy, World, plan_pod, plan_policy, plan_skeleton};
use serde_json::{Value, json};

const OUTSIDE: &str = "192.0.2.1";
const PODS: [(&str, &str, &str); 4] = [
    ("shop", "web", "10.244.0.2"),
    ("shop", "store", "10.244.0.3"),
    ("ops", "probe", "10.244.0.4"),
    ("ops", "log", "10.244.0.5"),
];

/// A node 10.244.0.1 with a bridge and four pods, and a machine outside. Everybody serves on 80 and 81.
struct Lab {
    node: Namespace,
    outside: Namespace,
    pods: BTreeMap<&'static str, Namespace>,
}

impl Lab {
    fn new() -> Self {
        let (node, outside) = (Namespace::new(), Namespace::new());
        node.sh("ip link add cni0 type bridge && ip addr add 10.244.0.1/24 dev cni0 && ip link set cni0 up");
        node.sh("echo 1 > /proc/sys/net/ipv4/ip_forward && echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables");
        let pods = PODS.map(|(_, name, address)| {
            let pod = Namespace::new();
            node.sh(&format!("ip link add v{name} type veth peer name eth0 netns {}", pod.tid()));
            node.sh(&format!("ip link set v{name} master cni0 up"));
            pod.sh(&format!("ip addr add {address}/24 dev eth0 && ip link set eth0 up"));
            pod.sh("ip route add default via 10.244.0.1");
            (name, pod)
        });
        node.sh(&format!("ip link add eth0 type veth peer name eth0 netns {}", outside.tid()));
        node.sh("ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up");
        outside.sh(&format!("ip addr add {OUTSIDE}/24 dev eth0 && ip link set eth0 up"));
        outside.sh("ip route add 10.244.0.0/24 via 192.0.2.2");
        let lab = Self { node, outside, pods: pods.into() };
        for namespace in lab.pods.values().chain([&lab.outside]) {
            for port in [80, 81] {
                namespace.serve(&format!("0.0.0.0:{port}"), "");
            }
        }
        lab
    }

    /// Puts policies (with names, of a namespace) into the kernel.
    fn apply(&self, policies: &[(&str, Value)]) {
        let mut world = World::default();
        for namespace in ["shop", "ops"] {
            world.namespaces.insert(namespace.to_owned(), [("name".to_owned(), namespace.to_owned())].into());
        }
        for (namespace, name, address) in PODS {
            let pod = Pod {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                labels: [("app".to_owned(), name.to_owned())].into(),
                ips: vec![address.parse().unwrap()],
                ports: vec![NamedPort { name: "second".to_owned(), protocol: Protocol::Tcp, number: 81 }],
                is_local: true,
            };
            world.put_pod(&ObjectKey::new(namespace, name), Some(pod));
        }
        for (index, (namespace, spec)) in policies.iter().enumerate() {
            let name = format!("p{index}");
            let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
            let policy = Policy::of(&serde_json::from_value(object).unwrap());
            world.policies.insert(ObjectKey::new(*namespace, name), policy);
        }
        self.node.block_on(move || async move {
            let mut keeper = TableKeeper::new(Nft::default(), plan_skeleton(false));
            for (key, policy) in &world.policies {
                keeper.put(&format!("policy {key}"), plan_policy(&world, policy, false));
            }
            for pod in world.pods.values().flat_map(BTreeMap::values) {
                let mut fragment = plan_pod(&world, pod, false);
                // A refusal is heard at once; for a drop, every question would wait until it gives up.
                for line in fragment.chains.values_mut().flatten() {
                    *line = line.replace("counter drop", "counter reject");
                }
                keeper.put(&format!("pod {}/{}", pod.namespace, pod.name), fragment);
            }
            keeper.apply().await.unwrap();
        });
    }

    /// Who reaches whom on a port: one line a receiver, with the senders that got an answer.
    fn matrix(&self, port: u16) -> Vec<String> {
        let senders: Vec<(&str, &Namespace)> = self
            .pods
            .iter()
            .map(|(name, namespace)| (*name, namespace))
            .chain([("node", &self.node), ("outside", &self.outside)])
            .collect();
        let receivers = PODS.iter().map(|(_, name, address)| (*name, *address)).chain([("outside", OUTSIDE)]);
        let lines = receivers.map(|(receiver, address)| {
            let target = format!("{address}:{port}");
            let others = senders.iter().filter(|(sender, _)| *sender != receiver);
            let reaching = std::thread::scope(|scope| {
                let asked: Vec<_> = others
                    .map(|(sender, namespace)| (*sender, scope.spawn(|| namespace.ask(&target).starts_with("saw"))))
                    .collect();
                asked.into_iter().filter_map(|(sender, reached)| reached.join().unwrap().then_some(sender)).collect()
            });
            let reaching: Vec<&str> = reaching;
            format!("{receiver}: {}", reaching.join(" "))
        });
        lines.collect()
    }
}

#[test]
fn policies_decide_who_reaches_whom() {
    if kedge_skip::skipped_without_root("policies_decide_who_reaches_whom") {
        return;
    }
    let lab = Lab::new();
    let everyone = [
        "web: log probe store node outside",
        "store: log probe web node outside",
        "probe: log store web node outside",
        "log: probe store web node outside",
        "outside: log probe store web node",
    ];
    lab.apply(&[]);
    assert_eq!(lab.matrix(80), everyone);

    // Nobody into shop; the node itself always may.
    lab.apply(&[("shop", json!({"podSelector": {}}))]);
    let closed = ["web: node", "store: node", everyone[2], everyone[3], everyone[4]];
    assert_eq!(lab.matrix(80), closed);

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
    assert_eq!(lab.matrix(80), closed);
    assert_eq!(lab.matrix(81)[..2], ["web: log probe node", "store: node"]);

    // Out of ops: the web only, and nothing outside but this address.
    lab.apply(&[(
        "ops",
        json!({"podSelector": {"matchLabels": {"app": "probe"}}, "policyTypes": ["Egress"], "egress": [
            {"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 80, "endPort": 80}]},
            {"to": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}], "ports": [{"port": 81}]},
        ]}),
    )]);
    let without_probe = ["store: log web node outside", everyone[2], "log: store web node outside"];
    assert_eq!(lab.matrix(80)[1..4], without_probe);
    assert_eq!(lab.matrix(80)[0], everyone[0]);
    assert_eq!(lab.matrix(80)[4], "outside: log store web node");
    assert_eq!(lab.matrix(81)[4], everyone[4]);

    // A sender that may, to a receiver that may not: both are asked.
    lab.apply(&[
        ("ops", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]})),
        (
            "shop",
            json!({"podSelector": {"matchLabels": {"app": "store"}}, "ingress": [{"from": [{"podSelector": {}}]}]}),
        ),
    ]);
    assert_eq!(lab.matrix(80), [everyone[0], "store: web node", everyone[2], everyone[3], everyone[4]]);

    lab.apply(&[]);
    assert_eq!(lab.matrix(80), everyone);
}
