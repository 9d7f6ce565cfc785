//! A node with a bridge, pods and a machine outside, in both families.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kedge_meta::ObjectKey;
use kedge_netfilter::{Nft, Protocol, TableKeeper};
use kedge_netns::Namespace;
use kedge_policy::{NamedPort, Pod, Policy, World, plan_pod, plan_policy, plan_skeleton};
use serde_json::{Value, json};

/// A pod of a test: 10.244.0.<number> and fd00:244::<number>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LabPod {
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
    pub(crate) number: u8,
}

const fn pod(namespace: &'static str, name: &'static str, number: u8) -> LabPod {
    LabPod { namespace, name, number }
}

pub(crate) const PODS: [LabPod; 4] =
    [pod("shop", "web", 2), pod("shop", "store", 3), pod("ops", "probe", 4), pod("ops", "log", 5)];
pub(crate) const MORE_PODS: [LabPod; 5] = [PODS[0], PODS[1], PODS[2], PODS[3], pod("free", "guest", 6)];

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) ipv6: bool,
}

impl LabPod {
    pub(crate) fn address(&self, ipv6: bool) -> IpAddr {
        let text = if ipv6 { format!("fd00:244::{}", self.number) } else { format!("10.244.0.{}", self.number) };
        text.parse().unwrap()
    }

    pub(crate) fn object(&self) -> Pod {
        let port = |name: &str, protocol, number| NamedPort { name: name.to_owned(), protocol, number };
        Pod {
            namespace: self.namespace.to_owned(),
            name: self.name.to_owned(),
            labels: [("app".to_owned(), self.name.to_owned())].into(),
            ips: vec![self.address(false), self.address(true)],
            ports: vec![port("second", Protocol::Tcp, 81), port("names", Protocol::Udp, 53)],
            is_local: true,
        }
    }
}

pub(crate) fn outside_address(ipv6: bool) -> IpAddr {
    if ipv6 { "fd00:2::1" } else { "192.0.2.1" }.parse().unwrap()
}

/// Everybody serves TCP on 80 and 81, UDP on 53, and talks on TCP and UDP port 90.
pub(crate) struct Lab {
    pub(crate) node: Namespace,
    outside: Namespace,
    pods: BTreeMap<&'static str, (LabPod, Namespace)>,
}

impl Lab {
    pub(crate) fn new(pods: &[LabPod]) -> Self {
        let (node, outside) = (Namespace::new(), Namespace::new());
        node.sh("ip link add cni0 type bridge && ip addr add 10.244.0.1/24 dev cni0 && ip link set cni0 up");
        node.sh("ip addr add fd00:244::1/64 dev cni0 nodad");
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            node.sh(&format!("echo 1 > /proc/sys/net/{switch}"));
        }
        for switch in ["iptables", "ip6tables"] {
            node.sh(&format!("echo 1 > /proc/sys/net/bridge/bridge-nf-call-{switch}"));
        }
        // Refusals come as errors, of which the kernel sends few to anybody.
        for switch in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
            node.sh(&format!("echo 0 > /proc/sys/net/{switch}"));
        }
        let pods = pods.iter().map(|pod| (pod.name, (*pod, plug_in(&node, pod)))).collect();
        node.sh(&format!("ip link add eth0 type veth peer name eth0 netns {}", outside.tid()));
        node.sh("ip addr add 192.0.2.2/24 dev eth0 && ip addr add fd00:2::2/64 dev eth0 nodad && ip link set eth0 up");
        outside
            .sh("ip addr add 192.0.2.1/24 dev eth0 && ip addr add fd00:2::1/64 dev eth0 nodad && ip link set eth0 up");
        outside.sh("ip route add 10.244.0.0/24 via 192.0.2.2 && ip route add fd00:244::/64 via fd00:2::2");
        let lab = Self { node, outside, pods };
        for namespace in lab.pods.values().map(|(_, namespace)| namespace).chain([&lab.outside]) {
            for port in [80, 81] {
                namespace.serve(&format!("[::]:{port}"), "");
            }
            namespace.serve_udp("[::]:53");
            namespace.echo("[::]:90");
        }
        lab
    }

    pub(crate) fn pod(&self, name: &str) -> &Namespace {
        &self.pods[name].1
    }

    pub(crate) fn world(&self, policies: &[(&str, Value)]) -> World {
        let mut world = World::default();
        for (pod, _) in self.pods.values() {
            let labels = [("name".to_owned(), pod.namespace.to_owned())].into();
            world.namespaces.insert(pod.namespace.to_owned(), labels);
            world.put_pod(&ObjectKey::new(pod.namespace, pod.name), Some(pod.object()));
        }
        for (index, (namespace, spec)) in policies.iter().enumerate() {
            let name = format!("p{index}");
            let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
            let policy = Policy::of(&serde_json::from_value(object).unwrap());
            world.policies.insert(ObjectKey::new(*namespace, name), policy);
        }
        world
    }

    /// Puts policies (with names, of a namespace) into the kernel.
    pub(crate) fn apply(&self, policies: &[(&str, Value)]) {
        let world = self.world(policies);
        self.node.block_on(move || async move {
            for ipv6 in [false, true] {
                let mut keeper = TableKeeper::new(Nft::default(), plan_skeleton(ipv6));
                for (key, policy) in &world.policies {
                    keeper.put(&format!("policy {key}"), plan_policy(&world, policy, ipv6));
                }
                for pod in world.pods.values().flat_map(BTreeMap::values) {
                    let mut fragment = plan_pod(&world, pod, ipv6);
                    // A refusal is heard at once; for a drop, every question would wait until it gives up.
                    for lines in fragment.chains.values_mut() {
                        *lines = lines.drain(..).flat_map(|line| refuse(line, ipv6)).collect();
                    }
                    keeper.put(&format!("pod {}/{}", pod.namespace, pod.name), fragment);
                }
                keeper.apply().await.unwrap();
            }
        });
    }

    /// Who reaches whom, as names of sender and receiver.
    pub(crate) fn matrix(&self, question: Question) -> BTreeSet<(String, String)> {
        let pods = || self.pods.iter().map(|(name, (_, namespace))| (*name, namespace));
        let senders: Vec<(&str, &Namespace)> =
            pods().chain([("node", &self.node), ("outside", &self.outside)]).collect();
        let receivers: Vec<(&str, IpAddr)> = self
            .pods
            .values()
            .map(|(pod, _)| (pod.name, pod.address(question.ipv6)))
            .chain([("outside", outside_address(question.ipv6))])
            .collect();
        std::thread::scope(|scope| {
            let ask = |(sender, namespace): (&str, &Namespace)| {
                let others = receivers.iter().filter(|(receiver, _)| *receiver != sender);
                let reached = others.filter(|(_, address)| {
                    let target = std::net::SocketAddr::new(*address, question.port).to_string();
                    let answer = match question.protocol {
                        Protocol::Udp => namespace.ask_udp(&target),
                        _ => namespace.ask(&target),
                    };
                    answer.starts_with("saw")
                });
                reached.map(|(receiver, _)| (sender.to_owned(), (*receiver).to_owned())).collect::<Vec<_>>()
            };
            let threads: Vec<_> = senders.iter().map(|sender| scope.spawn(move || ask(*sender))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    }
}

/// A refusal in the place of a drop. TCP over IPv6 takes errors for passing ones, but ends a connection that is reset.
fn refuse(line: String, ipv6: bool) -> Vec<String> {
    if !line.starts_with("counter drop") {
        return vec![line];
    }
    let reset = ipv6.then(|| "meta l4proto tcp reject with tcp reset".to_owned());
    reset.into_iter().chain([line.replace("counter drop", "counter reject")]).collect()
}

fn plug_in(node: &Namespace, pod: &LabPod) -> Namespace {
    let namespace = Namespace::new();
    let (name, number) = (pod.name, pod.number);
    node.sh(&format!("ip link add v{name} type veth peer name eth0 netns {}", namespace.tid()));
    node.sh(&format!("ip link set v{name} master cni0 up"));
    namespace.sh(&format!(
        "ip addr add 10.244.0.{number}/24 dev eth0 && ip addr add fd00:244::{number}/64 dev eth0 nodad && ip link set eth0 up"
    ));
    namespace.sh("ip route add default via 10.244.0.1 && ip route add default via fd00:244::1");
    namespace
}
