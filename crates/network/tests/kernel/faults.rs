//! Faults between nodes: what is reported, what goes on, and that it heals by itself.

use kedge_client::Informer;
use kedge_netns::Namespace;
use kedge_network::PodPath;

use crate::machine::{Machine, connect, node};
use crate::{add_pod, can_run};

/// Two nodes on a switch, with a pod each.
fn two_nodes(test: &str, folder: &std::path::Path) -> Option<(Namespace, [Machine; 2], Vec<Namespace>)> {
    let mut machines =
        [(1, "192.0.2.1"), (2, "192.0.2.2")].map(|(number, address)| Machine::new(folder, number, address));
    if !can_run(test, &machines[0].config()) {
        return None;
    }
    let switch = Namespace::new();
    connect(&switch, &[&machines[0], &machines[1]]);
    let nodes = [machines[0].node(), machines[1].node()];
    for machine in &mut machines {
        machine.start_network();
        machine.start_mesh(Informer::fixed(nodes.clone()), |_| {});
    }
    machines[0].wait_route("10.244.2.0/24 via 192.0.2.2");
    machines[1].wait_route("10.244.1.0/24 via 192.0.2.1");
    let pods = machines.iter().map(|machine| add_pod(&machine.namespace, &machine.config(), "pod")).collect();
    machines.iter().for_each(|machine| machine.wait_well("all is well"));
    Some((switch, machines, pods))
}

fn wait_path(machine: &Machine, expected: PodPath) {
    machine.wait(&format!("{expected:?}"), "kedge-bgp", |_, _| {
        machine.reachability().peers.first().is_some_and(|peer| peer.pods == expected)
    });
}

#[test]
fn cut_and_one_way_links_are_told_apart_and_heal() {
    let folder = tempfile::tempdir().unwrap();
    let Some((switch, machines, pods)) = two_nodes("cut_and_one_way_links_are_told_apart_and_heal", folder.path())
    else {
        return;
    };
    let [one, two] = &machines;
    wait_path(one, PodPath::Reachable);

    switch.sh("ip link set p2 down");
    wait_path(one, PodPath::Silent);
    one.wait_complaint("the cut is reported", "BGPPeersNotEstablished 0 of 1 BGP peers are established; 192.0.2.2");
    one.wait_complaint("by packets too", "node node-2 (192.0.2.2) does not answer (ICMP echo), and nothing arrives");
    two.wait_complaint("on both sides", "192.0.2.1");
    assert_eq!(one.namespace.ask("10.244.1.2:8080"), "saw 10.244.1.1", "pods of the node are reached all the while");
    switch.sh("ip link set p2 up");
    one.wait_well("it heals by itself");
    two.wait_well("it heals by itself");
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "saw 10.244.1.2");

    // What node 1 sends gets lost; what node 2 sends arrives.
    switch.sh("nft 'add table bridge cut; add chain bridge cut f { type filter hook forward priority 0; }; \
         add rule bridge cut f iifname \"p1\" ether type ip drop'");
    wait_path(one, PodPath::OneWay);
    wait_path(two, PodPath::Silent);
    one.wait_complaint("the direction is said", "packets from here to it are lost");
    switch.sh("nft delete table bridge cut");
    one.wait_well("it heals by itself");
    two.wait_well("it heals by itself");
    assert_eq!(pods[1].ask("10.244.1.2:8080"), "saw 10.244.2.2");
}

#[test]
fn a_smaller_mtu_on_the_way_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let Some((switch, machines, pods)) = two_nodes("a_smaller_mtu_on_the_way_is_named", folder.path()) else { return };
    let [one, two] = &machines;
    // A switch that drops what is too large for one of its ports, as switches do, without a word.
    switch.sh("nft 'add table bridge cut; add chain bridge cut f { type filter hook forward priority 0; }; \
         add rule bridge cut f ether type ip ip length > 1400 drop'");
    for machine in [one, two] {
        wait_path(machine, PodPath::MtuTooSmall { wanted: 1500, passes: 1400 });
        machine.wait_complaint("it is named", "MTUTooSmall node node-");
        machine.wait_complaint("with its size", "gets packets of 1400 bytes, but not of 1500, which pods send");
    }
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "saw 10.244.1.2", "small packets pass");
    // The remedy on the nodes: less for everything.
    for machine in [one, two] {
        machine.namespace.sh("ip link set eth0 mtu 1400");
    }
    for machine in [one, two] {
        machine.wait_well("it heals by itself");
        machine.wait_output("ip link show cni0", "mtu 1400 ", true);
    }
    switch.sh("nft delete table bridge cut");
}

#[test]
fn what_somebody_removes_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_switch, machines, pods)) = two_nodes("what_somebody_removes_comes_back", folder.path()) else { return };
    let one = &machines[0];
    one.namespace.sh("nft flush ruleset");
    one.wait_output("nft list tables", "table ip kedge-network", true);
    one.namespace.sh("ip route del 10.244.2.0/24; ip route del unreachable 10.244.0.0/16");
    one.wait_route("10.244.2.0/24 via 192.0.2.2 dev eth0 proto 108 metric 32");
    one.wait_route("unreachable 10.244.0.0/16 proto 107");
    one.namespace.sh("ip addr flush dev cni0");
    one.wait_output("ip addr show dev cni0", "10.244.1.1/24", true);
    std::fs::remove_file(one.config().cni_config_dir.join(kedge_network::CNI_FILE_NAME)).unwrap();
    one.wait_output(&format!("ls {}", one.config().cni_config_dir.display()), "10-kedge.conflist", true);
    one.wait_well("it heals by itself");
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "saw 10.244.1.2");
}

#[test]
fn wrong_numbers_names_and_addresses_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = Machine::new(folder.path(), 1, "192.0.2.1");
    let mut two = Machine::new(folder.path(), 2, "192.0.2.2");
    if !can_run("wrong_numbers_names_and_addresses_are_named", &one.config()) {
        return;
    }
    let switch = Namespace::new();
    connect(&switch, &[&one, &two]);
    let nodes = [one.node(), two.node()];
    // Node 3 has the address of node 2.
    one.start_mesh(Informer::fixed(nodes.clone().into_iter().chain([node(3, "192.0.2.2")])), |_| {});
    two.start_mesh(Informer::fixed(nodes), |config| config.asn = 64999);
    one.wait_complaint("the wrong number", "the peer is of AS 64999, and not of AS 64512 as configured");
    one.wait_complaint(
        "the address of two",
        "DuplicateNodeAddress the nodes node-2 and node-3 have the same address 192.0.2.2",
    );
    assert!(!one.namespace.sh("ip route").contains("proto 108"), "no routes from whom we don't know");
    one.stop();
    // Another machine registered under this one's name.
    one.start_mesh(Informer::fixed([node(1, "192.0.2.9"), node(2, "192.0.2.2")]), |_| {});
    one.wait_complaint(
        "the name of two",
        "DuplicateNodeName the Node node-1 has the address 192.0.2.9, and this machine 192.0.2.1",
    );
}
