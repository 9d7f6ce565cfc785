//! Nodes on two segments with a router between: routes within a segment, tunnels between the two.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kedge_client::Informer;
use kedge_netns::Namespace;
use kedge_network::{NetworkMode, PodPath, RouteState};

use crate::machine::{Machine, connect};
use crate::{add_pod, can_run};

/// Machines 1 and 2 on one segment, 3 on another. The router knows no pods.
fn segments(folder: &std::path::Path) -> (Namespace, [Machine; 3]) {
    let machines = [(1, "192.0.2.1"), (2, "192.0.2.2"), (3, "198.51.100.3")]
        .map(|(number, address)| Machine::new(folder, number, address));
    let router = Namespace::new();
    connect(&router, &[&machines[0], &machines[1]]);
    router.sh("ip addr add 192.0.2.254/24 dev br0 && echo 1 > /proc/sys/net/ipv4/ip_forward");
    router.sh(&format!("ip link add eth3 type veth peer name eth0 netns {}", machines[2].namespace.tid()));
    router.sh("ip addr add 198.51.100.254/24 dev eth3 && ip link set eth3 up");
    machines[2].namespace.sh("ip addr add 198.51.100.3/24 dev eth0 && ip link set eth0 up");
    for (machine, gateway) in machines.iter().zip(["192.0.2.254", "192.0.2.254", "198.51.100.254"]) {
        machine.namespace.sh(&format!("ip route add default via {gateway}"));
    }
    (router, machines)
}

fn nodes(machines: &[Machine]) -> Vec<Node> {
    machines.iter().map(Machine::node).collect()
}

/// Waits until the bridge and the CNI configuration have an MTU.
fn wait_mtu(machine: &Machine, expected: u32) {
    machine.wait_output("ip link show cni0", &format!("mtu {expected} "), true);
    let file = machine.config().cni_config_dir.join(kedge_network::CNI_FILE_NAME);
    machine.wait_output(&format!("cat {}", file.display()), &format!("\"mtu\": {expected}"), true);
}

/// Whether a packet of so many bytes arrives uncut.
fn passes(pod: &Namespace, to: &str, size: u32) -> bool {
    pod.sh(&format!("ping -c 1 -W 2 -M do -s {} {to} > /dev/null && echo yes || echo no", size - 28)).trim() == "yes"
}

#[test]
fn a_router_between_segments_is_crossed_in_tunnels() {
    let folder = tempfile::tempdir().unwrap();
    let (router, mut machines) = segments(folder.path());
    if !can_run("a_router_between_segments_is_crossed_in_tunnels", &machines[0].config()) {
        return;
    }
    let all = nodes(&machines);
    for machine in &mut machines {
        machine.start_network();
        machine.start_mesh(Informer::fixed(all.clone()), |_| {});
    }
    let [one, two, three] = &machines;
    one.wait_route("10.244.2.0/24 via 192.0.2.2 dev eth0 proto 108 metric 32");
    one.wait_route("10.244.3.0/24 via 198.51.100.3 dev kedge.vxlan proto 108 metric 32 onlink");
    two.wait_route("10.244.3.0/24 via 198.51.100.3 dev kedge.vxlan proto 108 metric 32 onlink");
    three.wait_route("10.244.1.0/24 via 192.0.2.1 dev kedge.vxlan proto 108 metric 32 onlink");
    three.wait_route("10.244.2.0/24 via 192.0.2.2 dev kedge.vxlan proto 108 metric 32 onlink");
    assert!(one.namespace.sh("ip -d link show kedge.vxlan").contains("vxlan id 4107 local 192.0.2.1 "));
    for machine in [one, two, three] {
        wait_mtu(machine, 1450);
        machine.wait_well("every node is reached");
    }

    let pods: Vec<Namespace> =
        [one, two, three].map(|machine| add_pod(&machine.namespace, &machine.config(), "pod")).into();
    for (index, pod) in pods.iter().enumerate() {
        for other in (0..3).filter(|other| *other != index) {
            let answer = pod.ask(&format!("10.244.{}.2:8080", other + 1));
            assert_eq!(answer, format!("saw 10.244.{}.2", index + 1), "pods see each other's own addresses");
        }
    }
    assert_eq!(one.namespace.ask("10.244.3.2:8080"), "saw 10.244.1.1", "a node comes from its pods' gateway");
    assert!(pods[0].sh("ip link show eth0").contains("mtu 1450 "));
    assert!(passes(&pods[0], "10.244.3.2", 1450), "a full packet passes uncut");
    assert!(!passes(&pods[0], "10.244.3.2", 1451));

    one.wait("packets of pods arrive", "kedge-bgp", |_, _| {
        one.reachability().peers.iter().filter(|peer| peer.pods == PodPath::Reachable).count() == 2
    });
    let known = one.reachability();
    let shown: Vec<_> = known.peers.iter().map(|peer| (peer.node.clone().unwrap(), peer.route, peer.pods)).collect();
    let (b, c) = ("192.0.2.2".parse().unwrap(), "198.51.100.3".parse().unwrap());
    let expected = [
        ("node-2".to_owned(), Some(RouteState::Native { gateway: b }), PodPath::Reachable),
        ("node-3".to_owned(), Some(RouteState::Vxlan { node: c }), PodPath::Reachable),
    ];
    assert_eq!(shown, expected);

    // Less room on the way of all: pods that start get less.
    for machine in [one, two, three] {
        machine.namespace.sh("ip link set eth0 mtu 1400");
        wait_mtu(machine, 1350);
        machine.wait_output("ip link show kedge.vxlan", "mtu 1350 ", true);
    }
    assert!(passes(&pods[0], "10.244.3.2", 1350));
    assert!(!passes(&pods[0], "10.244.3.2", 1351), "the sender hears that it is too much");

    restart_keeps_traffic(&mut machines, &pods, &all);
    drop(router);
}

/// A process that ends and starts again costs no packet, and takes out who is gone.
fn restart_keeps_traffic(machines: &mut [Machine; 3], pods: &[Namespace], all: &[Node]) {
    let [one, two, three] = machines;
    let pod = Arc::new(&pods[0]);
    let device = |machine: &Machine| machine.namespace.sh("ip -o link show kedge.vxlan | cut -d: -f1");
    let before = device(three);
    three.stop();
    assert_eq!(pod.ask("10.244.3.2:8080"), "saw 10.244.1.2", "nobody needs the process");
    three.start_network();
    three.start_mesh(Informer::fixed(all[..1].iter().cloned().chain([all[2].clone()])), |config| {
        config.stale_for = std::time::Duration::from_secs(8);
    });
    three.wait_route("10.244.1.0/24 via 192.0.2.1 dev kedge.vxlan");
    assert_eq!(device(three), before, "the device is taken over");
    assert_eq!(pod.ask("10.244.3.2:8080"), "saw 10.244.1.2");
    // Node 2 is no node any more.
    for command in ["ip route", "ip neigh show dev kedge.vxlan", "bridge fdb show dev kedge.vxlan"] {
        three.wait_output(command, "192.0.2.2", false);
    }
    assert!(
        three
            .namespace
            .sh("bridge fdb show dev kedge.vxlan")
            .contains("0a:6b:c0:00:02:01 dst 192.0.2.1 self permanent")
    );

    // Alone: nothing is left of the tunnels.
    two.stop();
    let state = two.config().state_dir;
    two.namespace.block_on(move || async move { kedge_network::teardown(&state).await.unwrap() });
    assert_eq!(two.namespace.sh("ip -o link show type vxlan"), "");
    assert!(one.namespace.sh("ip -o link show type vxlan").contains("kedge.vxlan"));
}

#[test]
fn modes_choose_between_tunnels_and_routes() {
    let folder = tempfile::tempdir().unwrap();
    let (router, mut machines) = segments(folder.path());
    if !can_run("modes_choose_between_tunnels_and_routes", &machines[0].config()) {
        return;
    }
    let all = nodes(&machines);
    // Native: the router has to know the pods, as it does where it is a peer.
    for number in 1..=2 {
        router.sh(&format!("ip route add 10.244.{number}.0/24 via 192.0.2.{number}"));
    }
    router.sh("ip route add 10.244.3.0/24 via 198.51.100.3");
    for machine in &mut machines {
        machine.start_network();
        machine.start_mesh(Informer::fixed(all.clone()), |config| config.mode = NetworkMode::Native);
    }
    machines[0].wait_route("10.244.3.0/24 via 192.0.2.254 dev eth0 proto 108 metric 32");
    machines[2].wait_route("10.244.1.0/24 via 198.51.100.254 dev eth0 proto 108 metric 32");
    for machine in &machines {
        machine.wait_well("every node is reached");
    }
    let pods: Vec<Namespace> =
        machines.iter().map(|machine| add_pod(&machine.namespace, &machine.config(), "pod")).collect();
    assert_eq!(pods[0].ask("10.244.3.2:8080"), "saw 10.244.1.2");
    assert!(passes(&pods[0], "10.244.3.2", 1500));

    // Another mode after a restart: everything in tunnels, also on one segment.
    for machine in &mut machines {
        machine.stop();
        machine.start_mesh(Informer::fixed(all.clone()), |config| config.mode = NetworkMode::Vxlan);
    }
    machines[0].wait_route("10.244.2.0/24 via 192.0.2.2 dev kedge.vxlan proto 108 metric 32 onlink");
    machines[0].wait_route("10.244.3.0/24 via 198.51.100.3 dev kedge.vxlan proto 108 metric 32 onlink");
    machines[1].wait_route("10.244.1.0/24 via 192.0.2.1 dev kedge.vxlan proto 108 metric 32 onlink");
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "saw 10.244.1.2");
}
