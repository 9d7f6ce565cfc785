//! A small network of namespaces: a node with a bridge, two pods, and a machine outside.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use kedge_netns::{Namespace, sh};

/// Serves on TCP 8080 and UDP 5353, at one address: answers over UDP must come from where the question went.
pub(crate) fn serve(pod: &Namespace, name: &'static str, address: &'static str) {
    pod.serve(&format!("{address}:8080"), &format!("{name} "));
    pod.run(move || {
        let socket = UdpSocket::bind((address, 5353)).expect("a fresh namespace has free ports");
        thread::spawn(move || {
            let mut buffer = [0; 100];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                // Whoever asked may have gone.
                let _ = socket.send_to(name.as_bytes(), from);
            }
        });
    });
}

/// Sends a datagram on a socket that stays, and reads the answer.
pub(crate) fn ask_udp(socket: &UdpSocket) -> String {
    socket.set_read_timeout(Some(Duration::from_secs(3))).expect("three seconds are not zero");
    let mut buffer = [0; 100];
    let answer = socket.send(b"?").and_then(|_| socket.recv(&mut buffer));
    answer.map_or_else(
        |error| format!("{:?}", error.kind()),
        |length| String::from_utf8_lossy(&buffer[..length]).into_owned(),
    )
}

/// The network: node 192.0.2.2 and 10.244.0.1, pods a 10.244.0.2 and b 10.244.0.3, outside 192.0.2.1.
pub(crate) struct Lab {
    pub(crate) node: Namespace,
    pub(crate) pod_a: Namespace,
    pub(crate) pod_b: Namespace,
    pub(crate) outside: Namespace,
}

impl Lab {
    /// Builds it; `None`, with a word about it, where the test can't run.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if kedge_skip::skipped_without_root(test) {
            return None;
        }
        let lab = Self {
            node: Namespace::new(),
            pod_a: Namespace::new(),
            pod_b: Namespace::new(),
            outside: Namespace::new(),
        };
        lab.node.run(|| {
            sh("ip link add cni0 type bridge && ip addr add 10.244.0.1/24 dev cni0 && ip link set cni0 up");
            sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
        });
        for (pod, name, address) in [(&lab.pod_a, "a", "10.244.0.2"), (&lab.pod_b, "b", "10.244.0.3")] {
            let tid = pod.tid();
            lab.node.run(move || {
                sh(&format!("ip link add veth{name} type veth peer name eth0 netns {tid}"));
                sh(&format!("ip link set veth{name} master cni0 up && bridge link set dev veth{name} hairpin on"));
            });
            pod.run(move || {
                sh(&format!(
                    "ip addr add {address}/24 dev eth0 && ip link set eth0 up && ip route add default via 10.244.0.1"
                ));
            });
            serve(pod, name, address);
        }
        let tid = lab.outside.tid();
        lab.node.run(move || {
            sh(&format!("ip link add eth0 type veth peer name eth0 netns {tid}"));
            sh("ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up");
        });
        lab.outside.run(|| sh("ip addr add 192.0.2.1/24 dev eth0 && ip link set eth0 up"));
        // The route that the pod network makes; there is no default route.
        lab.node.run(|| sh("ip route add 10.96.0.0/12 dev cni0 scope link src 192.0.2.2 metric 4096"));
        Some(lab)
    }
}
