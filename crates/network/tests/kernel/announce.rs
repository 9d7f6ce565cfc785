//! Addresses of Services on the nodes' segment, asked by a client there that knows nothing but ARP, and as routes at BIRD.

use std::path::Path;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_client::Informer;
use kedge_meta::ComponentState;
use kedge_netns::Namespace;
use serde_json::json;

use crate::can_run;
use crate::machine::{Machine, connect};

const ADDRESSES: [&str; 3] = ["192.0.2.40", "192.0.2.41", "192.0.2.42"];

/// A Service with an address, and one endpoint on a node.
fn service(name: &str, address: &str, policy: &str, node: &str) -> (Service, EndpointSlice) {
    let service = json!({
        "metadata": {"namespace": "d", "name": name, "annotations": {"kedge.dev/load-balancer-pool": "true"}},
        "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}},
    });
    let slice = json!({
        "metadata": {"namespace": "d", "name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.1.9"], "nodeName": node, "conditions": {"ready": true}}],
    });
    (serde_json::from_value(service).unwrap(), serde_json::from_value(slice).unwrap())
}

pub(crate) fn ready(mut node: Node) -> Node {
    let conditions = json!([{"type": "Ready", "status": "True"}]);
    node.status.as_mut().unwrap().conditions = serde_json::from_value(conditions).unwrap();
    node
}

/// Two nodes on a switch, with the routes between them and three Services, one of them only for node 2.
pub(crate) fn lab(test: &str, folder: &Path) -> Option<(Namespace, [Machine; 2])> {
    let mut machines =
        [(1, "192.0.2.1"), (2, "192.0.2.2")].map(|(number, address)| Machine::new(folder, number, address));
    if !can_run(test, &machines[0].config()) {
        return None;
    }
    let switch = Namespace::new();
    connect(&switch, &[&machines[0], &machines[1]]);
    switch.sh("ip addr add 192.0.2.254/24 dev br0");
    let nodes = [ready(machines[0].node()), ready(machines[1].node())];
    for machine in &mut machines {
        // As the proxy would, for whoever asks at an address of a Service.
        machine.namespace.sh("nft 'add table ip lb; add chain ip lb in { type nat hook prerouting priority -100; }; \
             add rule ip lb in ip daddr 192.0.2.40/30 tcp dport 80 redirect to :8080'");
        machine.namespace.serve("0.0.0.0:8080", &format!("{} ", machine.name()));
        machine.start_network();
        let (services, slices): (Vec<_>, Vec<_>) = [
            service("one", ADDRESSES[0], "Cluster", "node-1"),
            service("two", ADDRESSES[1], "Cluster", "node-1"),
            service("local", ADDRESSES[2], "Local", "node-2"),
        ]
        .into_iter()
        .unzip();
        machine.start_announcing(Informer::fixed(services), Informer::fixed(slices), Informer::fixed(nodes.clone()));
    }
    Some((switch, machines))
}

/// Who answers at an address, by a client that has forgotten whom it knew.
fn holder(client: &Namespace, address: &str) -> String {
    client.sh("ip neigh flush dev br0");
    client.ask(&format!("{address}:80"))
}

/// Waits until a client, with what it knows by now, gets its answer from a node.
fn wait_answer(client: &Namespace, address: &str, node: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut seen = String::new();
    while !seen.starts_with(node) {
        assert!(std::time::Instant::now() < deadline, "{address} at {node}: {seen} {}", client.sh("ip neigh"));
        seen = client.ask(&format!("{address}:80"));
    }
}

#[test]
fn one_node_answers_for_each_address_and_another_when_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let test = "one_node_answers_for_each_address_and_another_when_it_goes";
    let Some((client, mut machines)) = lab(test, folder.path()) else { return };
    let nodes = [ready(machines[0].node()), ready(machines[1].node())];
    for machine in &mut machines {
        machine.start_mesh(Informer::fixed(nodes.clone()), |_| {});
    }
    machines.iter().for_each(|machine| machine.wait_well("the nodes know each other"));
    wait_answer(&client, ADDRESSES[2], "node-2");
    for machine in &machines {
        machine.wait("it announces", "kedge-announce", |state, _| state == ComponentState::Running);
    }
    // Each time the same node, for whoever asks.
    for address in ADDRESSES {
        let first = holder(&client, address);
        assert!(first.starts_with("node-"), "{address}: {first}");
        for _ in 0..5 {
            assert_eq!(holder(&client, address), first, "{address}");
        }
    }
    // An address that no Service has is nobody's.
    assert_eq!(holder(&client, "192.0.2.43"), "HostUnreachable");

    // Its cable is cut: the other node takes what both may have, and says so to those who knew the old one.
    client.sh("ip link set p1 down");
    for address in ADDRESSES {
        wait_answer(&client, address, "node-2");
    }
    client.sh("ip link set p1 up");
    machines.iter().for_each(|machine| machine.wait_well("the nodes know each other again"));
    client.sh("ip link set p2 down");
    for address in &ADDRESSES[..2] {
        wait_answer(&client, address, "node-1");
    }
    // What only node 2 may announce nobody else does.
    assert_eq!(holder(&client, ADDRESSES[2]), "HostUnreachable");
    client.sh("ip link set p2 up");
    wait_answer(&client, ADDRESSES[2], "node-2");
}

#[test]
fn another_machine_with_the_address_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let Some((client, machines)) = lab("another_machine_with_the_address_is_reported", folder.path()) else { return };
    wait_answer(&client, ADDRESSES[2], "node-2");
    client.sh(&format!("ip addr add {}/32 dev br0", ADDRESSES[2]));
    machines[1].wait("the conflict is named", "kedge-announce", |state, text| {
        state == ComponentState::Degraded
            && text.contains("AddressConflict 192.0.2.42 is announced by this node, and ")
            && text.ends_with(" says to have it too")
    });
    client.sh(&format!("ip addr del {}/32 dev br0", ADDRESSES[2]));
    machines[1].wait("it is forgotten", "kedge-announce", |state, _| state == ComponentState::Running);
}
