//! Two nodes with pods, routes between them by BGP.

use kedge_client::Informer;
use kedge_meta::ComponentState;

use crate::machine::Machine;
use crate::{add_pod, can_run, run_once};

#[test]
fn pods_of_two_nodes_reach_each_other_and_a_blocked_peer_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = Machine::new(folder.path(), 1, "192.0.2.1");
    let mut two = Machine::new(folder.path(), 2, "192.0.2.2");
    if !can_run("pods_of_two_nodes_reach_each_other_and_a_blocked_peer_is_named", &one.config()) {
        return;
    }
    one.namespace.sh(&format!("ip link add eth0 type veth peer name eth0 netns {}", two.namespace.tid()));
    let mut pods = Vec::new();
    for machine in [&one, &two] {
        machine.namespace.sh(&format!("ip addr add {}/24 dev eth0 && ip link set eth0 up", machine.address));
        let config = machine.config();
        assert_eq!(run_once(&machine.namespace, config.clone()).state, ComponentState::Running);
        pods.push(add_pod(&machine.namespace, &config, "pod"));
    }
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "HostUnreachable", "nobody knows the way yet");

    let nodes = || Informer::fixed([one.node(), two.node()]);
    let (for_one, for_two) = (nodes(), nodes());
    one.start_mesh(for_one, |_| {});
    two.start_mesh(for_two, |_| {});
    one.wait_route("10.244.2.0/24 via 192.0.2.2 dev eth0 proto 108 metric 32");
    two.wait_route("10.244.1.0/24 via 192.0.2.1 dev eth0 proto 108 metric 32");
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "saw 10.244.1.2", "pods see each other's own addresses");
    assert_eq!(pods[1].ask("10.244.1.2:8080"), "saw 10.244.2.2");
    one.wait_well("both are established");

    one.namespace.sh("nft 'add table ip block; add chain ip block in { type filter hook input priority 0; }; \
         add chain ip block out { type filter hook output priority 0; }; \
         add rule ip block in tcp dport 179 drop; add rule ip block in tcp sport 179 drop; \
         add rule ip block out tcp dport 179 drop; add rule ip block out tcp sport 179 drop'");
    for machine in [&one, &two] {
        let expected = "BGPPeersNotEstablished 0 of 1 BGP peers are established; 192.0.2.";
        machine.wait_complaint("the blocked peer is named", expected);
    }
    two.wait_complaint("the reason is said", "is TCP port 179 blocked?");
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "saw 10.244.1.2", "packets go on meanwhile");
    one.namespace.sh("nft delete table ip block");
    for machine in [&one, &two] {
        machine.wait_well("it heals by itself");
    }

    // The routes outlive the process.
    one.stop();
    assert!(two.namespace.sh("ip route").contains("10.244.1.0/24 via 192.0.2.1"));
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "saw 10.244.1.2");
}
