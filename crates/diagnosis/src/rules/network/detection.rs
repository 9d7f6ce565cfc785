//! G2: calico took an address for a machine's that other machines cannot reach: a bridge's of containers or of virtual
//! machines, or one that every machine has.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use crate::evidence::{Evidence, Place};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;
use crate::rules::network::bgp::{complaints, peers_of};
use crate::rules::network::peers::node_addresses;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Where calico writes the address that it took.
const ANNOTATION: &str = "projectcalico.org/IPv4Address";

/// Ranges that are a machine's own by custom: docker's bridge, libvirt's, VirtualBox's translated network.
const OWN: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(172, 17, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 122, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 2, 0), 24),
];

pub(super) const RULE: Rule = Rule {
    id: "G2",
    title: "the pod network took a wrong address for a machine's",
    layer: Layer::Network,
    explains: &[Explains { ids: &["G6", "G14", "G25"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = of_annotations(evidence);
    for word in complaints(evidence) {
        let Some(peer) = peers_of(word.message).find(|peer| is_foreign(evidence, *peer)) else { continue };
        let told = format!(
            "{} looks for a BGP peer at {peer}, which is an address of a bridge on some machine, not of a machine",
            word.subject
        );
        let item = &evidence.items[word.index];
        let subject = Subject::machine(&Place::Node(peer.to_string()));
        if !found.iter().any(|known| known.text.contains(&peer.to_string())) {
            let proof = vec![word.index];
            found.push(Finding::failure(subject, item, Certainty::Likely, told, proof, repair()).on_node(word.node));
        }
    }
    found
}

/// Nodes that calico has at an address which cannot be theirs towards others.
fn of_annotations(evidence: &Evidence) -> Vec<Finding> {
    let mut taken: BTreeMap<IpAddr, Vec<(usize, &str)>> = BTreeMap::new();
    for (index, _, node) in evidence.objects("Node") {
        let address = text(&node["metadata"]["annotations"][ANNOTATION]).split('/').next().unwrap_or_default();
        if let Ok(address) = address.parse() {
            taken.entry(address).or_default().push((index, text(&node["metadata"]["name"])));
        }
    }
    let wrong = taken.into_iter().filter(|(address, nodes)| nodes.len() > 1 || is_foreign(evidence, *address));
    let finding = |(address, nodes): (IpAddr, Vec<(usize, &str)>)| {
        let names = nodes.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
        let told = format!("calico has {names} at {address}, where other machines cannot reach it");
        let proof: Vec<usize> = nodes.iter().map(|(index, _)| *index).collect();
        let subject = Subject::machine(&Place::Node(nodes[0].1.to_owned()));
        Finding::failure(subject, &evidence.items[proof[0]], Certainty::Proven, told, proof, repair())
            .on_node(nodes[0].1)
    };
    wrong.map(finding).collect()
}

/// Whether an address is a bridge's or a translated one's by custom, and no Node is reached at it.
pub(super) fn is_foreign(evidence: &Evidence, address: IpAddr) -> bool {
    let IpAddr::V4(v4) = address else { return false };
    OWN.iter().any(|range| range.contains(&v4)) && !node_addresses(evidence).contains_key(&address)
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "See which address each machine has for calico",
            "kubectl get nodes -o yaml | grep projectcalico.org/IPv4Address",
        ),
        (
            "Let it take the one that the Node has",
            "kubectl -n kube-system set env daemonset/calico-node IP_AUTODETECTION_METHOD=kubernetes-internal-ip",
        ),
        (
            "Where the operator installed it",
            "kubectl patch installation default --type merge -p '{\"spec\":{\"calicoNetwork\":{\"nodeAddressAutodetectionV4\":{\"kubernetes\":\"NodeInternalIP\"}}}}'",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn calico(name: &str, address: &str, internal: &str) -> Value {
        let mut node = node(name, json!([{"type": "Ready", "status": "True"}]));
        node["metadata"]["annotations"] = json!({"projectcalico.org/IPv4Address": address});
        node["status"]["addresses"] = json!([{"type": "InternalIP", "address": internal}]);
        node
    }

    #[test]
    fn a_bridge_s_address_and_a_shared_one_are_found() {
        let event = event_of(
            "Pod",
            "calico-node-x",
            "Unhealthy",
            "calico/node is not ready: BIRD is not ready: BGP not established with 172.17.0.1",
        );
        assert_eq!(found(&RULE, [event.clone()]).len(), 1);
        let bridge = calico("one", "172.17.0.1/16", "10.0.0.1");
        assert_eq!(found(&RULE, [bridge, event]).len(), 1);
        let shared = [calico("one", "10.9.2.15/24", "10.0.0.1"), calico("two", "10.9.2.15/24", "10.0.0.2")];
        assert_eq!(found(&RULE, shared), ["calico has one, two at 10.9.2.15, where other machines cannot reach it"]);
    }

    #[test]
    fn an_address_of_the_node_or_of_a_second_network_is_not() {
        assert_eq!(found(&RULE, [calico("one", "172.17.0.9/16", "172.17.0.9")]), [""; 0]);
        assert_eq!(found(&RULE, [calico("one", "10.1.0.9/16", "10.0.0.9")]), [""; 0]);
        let event =
            event_of("Pod", "calico-node-x", "Unhealthy", "BIRD is not ready: BGP not established with 10.0.0.2");
        assert_eq!(found(&RULE, [event]), [""; 0]);
    }
}
