//! BIRD as a route reflector of the nodes, and as a router outside of the cluster.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kedge_client::Informer;
use kedge_netns::Namespace;
use kedge_network::{MeshConfig, PeerConfig};

use crate::announce;
use crate::machine::{Machine, connect};
use crate::{add_pod, can_run};

const BIRD: &str = "/usr/sbin/bird";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

/// A BIRD in a namespace; ends with the test.
struct Bird(Child);

impl Bird {
    /// Starts one with two neighbours and `session` in each of their sessions.
    fn start(namespace: &Namespace, folder: &Path, asn: u32, session: &str) -> Self {
        let neighbours = [1, 2].map(|number| {
            format!(
                "protocol bgp n{number} {{ local {ADDRESS} as {asn}; neighbor 192.0.2.{number} as 64512; {session}\n\
                 ipv4 {{ import all; export all; }}; }}\n"
            )
        });
        let config = format!(
            "router id {ADDRESS};\nprotocol device {{ }}\nprotocol kernel {{ ipv4 {{ export all; }}; }}\n{}",
            neighbours.concat()
        );
        let (file, control) = (folder.join("bird.conf"), folder.join("bird.ctl"));
        std::fs::write(&file, config).unwrap();
        Self(namespace.run(move || {
            let mut command = Command::new(BIRD);
            command.arg("-f").arg("-c").arg(file).arg("-s").arg(control);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        }))
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two nodes on a switch that has an address of its own, with a pod each, whose peers are as `change` says.
fn lab(test: &str, folder: &Path, change: fn(&mut MeshConfig)) -> Option<(Namespace, [Machine; 2], Vec<Namespace>)> {
    let mut machines =
        [(1, "192.0.2.1"), (2, "192.0.2.2")].map(|(number, address)| Machine::new(folder, number, address));
    if !can_run(test, &machines[0].config()) {
        return None;
    }
    if !Path::new(BIRD).exists() {
        kedge_skip::skip(test, "there is no BIRD (Debian's package bird2)");
        return None;
    }
    let switch = Namespace::new();
    connect(&switch, &[&machines[0], &machines[1]]);
    switch.sh(&format!("ip addr add {ADDRESS}/24 dev br0"));
    let nodes = [machines[0].node(), machines[1].node()];
    for machine in &mut machines {
        machine.start_network();
        machine.start_mesh(Informer::fixed(nodes.clone()), change);
    }
    let pods = machines.iter().map(|machine| add_pod(&machine.namespace, &machine.config(), "pod")).collect();
    Some((switch, machines, pods))
}

#[test]
fn a_route_reflector_takes_the_place_of_the_mesh() {
    let folder = tempfile::tempdir().unwrap();
    let lab = lab("a_route_reflector_takes_the_place_of_the_mesh", folder.path(), |config| {
        config.full_mesh = false;
        config.peers = vec![PeerConfig { address: ADDRESS.into(), asn: 64512, port: None }];
    });
    let Some((switch, machines, pods)) = lab else { return };
    machines[0].wait_complaint("who is missing", "0 of 1 BGP peers are established; 192.0.2.254 (AS 64512)");
    let bird = Bird::start(&switch, folder.path(), 64512, "rr client; graceful restart on;");
    // From node to node, not through the reflector.
    machines[0].wait_route("10.244.2.0/24 via 192.0.2.2 dev eth0 proto 108 metric 32");
    machines[1].wait_route("10.244.1.0/24 via 192.0.2.1 dev eth0 proto 108 metric 32");
    machines.iter().for_each(|machine| machine.wait_well("the reflector is a peer"));
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "saw 10.244.1.2");

    drop(bird);
    machines[0].wait_complaint("its loss is said", "192.0.2.254 (AS 64512)");
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "saw 10.244.1.2", "routes outlive it for a while");
    let _bird = Bird::start(&switch, folder.path(), 64512, "rr client; graceful restart on;");
    machines.iter().for_each(|machine| machine.wait_well("it heals by itself"));
    assert_eq!(pods[1].ask("10.244.1.2:8080"), "saw 10.244.2.2");
}

#[test]
fn a_router_outside_learns_where_pods_are() {
    let folder = tempfile::tempdir().unwrap();
    let lab = lab("a_router_outside_learns_where_pods_are", folder.path(), |config| {
        config.peers = vec![PeerConfig { address: ADDRESS.into(), asn: 64999, port: None }];
    });
    let Some((switch, machines, pods)) = lab else { return };
    let _bird = Bird::start(&switch, folder.path(), 64999, "graceful restart on;");
    machines.iter().for_each(|machine| machine.wait_well("all are peers"));
    machines[0].wait_route("10.244.2.0/24 via 192.0.2.2 dev eth0");
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "saw 10.244.1.2");
    for number in [1, 2] {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let route = format!("10.244.{number}.0/24 via 192.0.2.{number}");
        while !switch.sh("ip route").contains(&route) {
            assert!(std::time::Instant::now() < deadline, "{route}: {}", switch.sh("ip route"));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(switch.ask(&format!("10.244.{number}.2:8080")), "saw 192.0.2.254", "as it comes");
    }
}

#[test]
fn a_router_outside_learns_addresses_of_services() {
    let folder = tempfile::tempdir().unwrap();
    if !Path::new(BIRD).exists() {
        kedge_skip::skip("a_router_outside_learns_addresses_of_services", "there is no BIRD (Debian's package bird2)");
        return;
    }
    let Some((switch, mut machines)) = announce::lab("a_router_outside_learns_addresses_of_services", folder.path())
    else {
        return;
    };
    let _bird = Bird::start(&switch, folder.path(), 64999, "graceful restart on;");
    let nodes = [announce::ready(machines[0].node()), announce::ready(machines[1].node())];
    for machine in &mut machines {
        machine.start_mesh(Informer::fixed(nodes.clone()), |config| {
            config.peers = vec![PeerConfig { address: ADDRESS.into(), asn: 64999, port: None }];
        });
    }
    machines.iter().for_each(|machine| machine.wait_well("all are peers"));
    let wait = |what: &str, is_there: &dyn Fn(&str) -> bool| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !is_there(&switch.sh("ip route")) {
            assert!(std::time::Instant::now() < deadline, "{what}: {}", switch.sh("ip route"));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    wait("from some node", &|routes| routes.contains("192.0.2.40 via 192.0.2."));
    wait("only from the node with the endpoint", &|routes| routes.contains("192.0.2.42 via 192.0.2.2 "));
    assert_eq!(switch.ask("192.0.2.42:80"), "node-2 saw 192.0.2.254");
    // The nodes themselves take no such route.
    assert!(!machines[0].namespace.sh("ip route").contains("192.0.2.42"));
    machines[1].stop();
    switch.sh("ip link set p2 down");
    wait("who is left", &|routes| routes.contains("192.0.2.40 via 192.0.2.1 "));
}
