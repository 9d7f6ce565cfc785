//! Two nodes with IPv6, or with both families in either order: routes and tunnels for each family of pods, whichever family
//! the nodes have their sessions and tunnels over.

use kedge_client::Informer;
use kedge_netns::Namespace;
use kedge_network::{NetworkMode, PodPath};

use crate::machine::{Machine, connect};
use crate::{add_pod, can_run};

const V6_PORT: u16 = 8081;

/// What two nodes have, and what is expected of them.
struct Case {
    /// The addresses of a node, with `N` for its number.
    addresses: &'static str,
    mode: NetworkMode,
    /// What their pods' MTU is.
    mtu: u32,
    /// Routes of node 1 in each family.
    routes: &'static [&'static str],
    /// The tunnels' device, where there is one.
    device: Option<&'static str>,
    /// Whether one family is lost for a while.
    is_disturbed: bool,
}

const BOTH_NATIVE: Case = Case {
    addresses: "192.0.2.N,fd00:192::N",
    mode: NetworkMode::Auto,
    mtu: 1500,
    routes: &[
        "10.244.2.0/24 via 192.0.2.2 dev eth0 proto 108",
        "fd00:10:244:2::/64 via fd00:192::2 dev eth0 proto 108",
    ],
    device: None,
    is_disturbed: true,
};

const BOTH_IN_TUNNELS: Case = Case {
    addresses: "192.0.2.N,fd00:192::N",
    mode: NetworkMode::Vxlan,
    mtu: 1450,
    routes: &[
        "10.244.2.0/24 via 192.0.2.2 dev kedge.vxlan proto 108",
        "fd00:10:244:2::/64 via fe80::86b:c0ff:fe00:202 dev kedge.vxlan proto 108",
    ],
    device: Some("local 192.0.2.1 "),
    is_disturbed: false,
};

const BOTH_IN_TUNNELS_OVER_IPV6: Case = Case {
    addresses: "fd00:192::N,192.0.2.N",
    mode: NetworkMode::Vxlan,
    mtu: 1430,
    routes: &["10.244.2.0/24 via 192.0.2.2 dev kedge.vxlan proto 108", "fd00:10:244:2::/64 via fe80::86b:"],
    device: Some("local fd00:192::1 "),
    is_disturbed: false,
};

const IPV6_ALONE: Case = Case {
    addresses: "fd00:192::N",
    mode: NetworkMode::Auto,
    mtu: 1500,
    routes: &["fd00:10:244:2::/64 via fd00:192::2 dev eth0 proto 108"],
    device: None,
    is_disturbed: false,
};

/// A pod that answers in both families.
fn pod(machine: &Machine) -> Namespace {
    let pod = add_pod(&machine.namespace, &machine.config(), "pod");
    pod.serve(&format!("[::]:{V6_PORT}"), "");
    pod
}

fn passes(pod: &Namespace, to: &str, size: u32, header: u32) -> bool {
    pod.sh(&format!("ping -c 1 -W 2 -M do -s {} {to} > /dev/null && echo yes || echo no", size - header)).trim()
        == "yes"
}

fn check(test: &str, case: &Case) {
    let folder = tempfile::tempdir().unwrap();
    let mut machines =
        [1, 2].map(|number: u8| Machine::new(folder.path(), number, &case.addresses.replace('N', &number.to_string())));
    if !can_run(test, &machines[0].config()) {
        return;
    }
    let switch = Namespace::new();
    connect(&switch, &[&machines[0], &machines[1]]);
    let nodes: Vec<_> = machines.iter().map(Machine::node).collect();
    for machine in &mut machines {
        let (mode, known) = (case.mode, Informer::fixed(nodes.clone()));
        machine.start_network();
        machine.start_mesh(known, |config| config.mode = mode);
    }
    let [one, two] = &machines;
    for route in case.routes {
        one.wait_output("ip route; ip -6 route", route, true);
    }
    for machine in [one, two] {
        machine.wait_well("the other node is reached");
        machine.wait_output("ip link show cni0", &format!("mtu {} ", case.mtu), true);
    }
    if let Some(device) = case.device {
        assert!(one.namespace.sh("ip -d link show kedge.vxlan").contains(device));
    }
    let pods = [pod(one), pod(two)];
    let has = |family: &str| case.routes.iter().any(|route| route.starts_with(family));
    if has("10.244.") {
        assert_eq!(pods[0].ask("10.244.2.2:8080"), "saw 10.244.1.2");
        assert!(passes(&pods[0], "10.244.2.2", case.mtu, 28) && !passes(&pods[0], "10.244.2.2", case.mtu + 1, 28));
    }
    assert_eq!(pods[0].ask(&format!("[fd00:10:244:2::2]:{V6_PORT}")), "saw fd00:10:244:1::2");
    assert_eq!(pods[1].ask(&format!("[fd00:10:244:1::2]:{V6_PORT}")), "saw fd00:10:244:2::2");
    assert!(
        passes(&pods[0], "fd00:10:244:2::2", case.mtu, 48) && !passes(&pods[0], "fd00:10:244:2::2", case.mtu + 1, 48)
    );
    let is_reached = || one.reachability().peers.iter().any(|peer| peer.pods == PodPath::Reachable);
    one.wait("echoes of every family arrive", "kedge-bgp", |_, _| is_reached());

    if case.is_disturbed {
        lose_a_family(one, two);
    }
}

/// One family alone is lost: that is told, and heals.
fn lose_a_family(one: &Machine, two: &Machine) {
    let block = "add table ip6 block; add chain ip6 block in { type filter hook prerouting priority -300; }; \
         add rule ip6 block in icmpv6 type { echo-request, echo-reply } drop";
    two.namespace.sh(&format!("nft '{block}'"));
    one.wait_complaint("a family is lost", "PodNetworkUnreachable node node-2");
    two.namespace.sh("nft delete table ip6 block");
    one.wait_well("it heals by itself");
}

#[test]
fn both_families_have_routes() {
    check("both_families_have_routes", &BOTH_NATIVE);
}

#[test]
fn both_families_go_through_tunnels() {
    check("both_families_go_through_tunnels", &BOTH_IN_TUNNELS);
}

#[test]
fn tunnels_go_over_ipv6() {
    check("tunnels_go_over_ipv6", &BOTH_IN_TUNNELS_OVER_IPV6);
}

#[test]
fn ipv6_alone_has_routes() {
    check("ipv6_alone_has_routes", &IPV6_ALONE);
}
