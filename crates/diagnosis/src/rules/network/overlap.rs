//! G21: the ranges of pods or Services overlap with the machines' own network, or with one behind a route such as a VPN's.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::evidence::{Evidence, Item, Place};
use crate::facts::NetworkFact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{list, text};
use crate::rules::network::bridged_services::is_of_pods;
use crate::rules::network::peers::node_addresses;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "G21",
    title: "a range of the cluster overlaps with another network",
    layer: Layer::Network,
    explains: &[Explains { ids: &["G6", "G14", "G25"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let ranges = ranges(evidence);
    let mut found: Vec<Finding> = Vec::new();
    for (address, name) in node_addresses(evidence) {
        let Some((index, range, what)) = ranges.iter().find(|(_, range, _)| range.contains(&address)) else { continue };
        let told = format!("{range}, {what}, contains {address}, the address of {name}");
        found.push(finding(&evidence.items[*index], name, told, vec![*index]));
        break;
    }
    for (index, item, fact) in evidence.networks() {
        let NetworkFact::Route { to, via, interface } = fact else { continue };
        let Ok(network) = to.parse::<IpNet>() else { continue };
        if is_own(evidence, item, interface, via.as_deref()) {
            continue;
        }
        let overlap = ranges.iter().find(|(_, range, _)| range.contains(&network) || network.contains(range));
        if let (Some((range_index, range, what)), Place::Node(name)) =
            (overlap.filter(|_| network.prefix_len() > 0), &item.place)
        {
            let told = format!("{range}, {what}, overlaps with {network}, which {name} reaches over {interface}");
            found.push(finding(item, name, told, vec![index, *range_index]));
        }
    }
    found
}

/// The ranges of the cluster: those of Nodes, those of Services, and those in CNI configurations.
fn ranges(evidence: &Evidence) -> Vec<(usize, IpNet, &'static str)> {
    let parse = |index: usize, value: &Value, what| Some((index, text(value).parse().ok()?, what));
    let nodes = evidence
        .objects("Node")
        .filter_map(move |(index, _, node)| parse(index, &node["spec"]["podCIDR"], "a range of pods"));
    let services = evidence.objects("ServiceCIDR").flat_map(move |(index, _, range)| {
        list(&range["spec"]["cidrs"]).filter_map(move |cidr| parse(index, cidr, "the range of Services"))
    });
    nodes.chain(services).collect()
}

/// Whether a route is the pod network's: over one of its interfaces, by one of its bridges, or to another machine.
fn is_own(evidence: &Evidence, item: &Item, interface: &str, via: Option<&str>) -> bool {
    const KINDS: [&str; 5] = ["vxlan", "ipip", "wireguard", "geneve", "veth"];
    const NAMES: [&str; 8] = ["cali", "flannel", "tunl", "cilium", "lxc", "veth", "vxlan", "wireguard"];
    let is_to_node = via
        .and_then(|via| via.parse::<IpAddr>().ok())
        .is_some_and(|via| node_addresses(evidence).contains_key(&via) || evidence.objects("Node").next().is_none());
    let is_of_network = |fact: &NetworkFact| matches!(fact, NetworkFact::Interface { name, kind, .. } if name == interface && KINDS.contains(&kind.as_str()));
    is_of_pods(interface)
        || interface == "lo"
        || NAMES.iter().any(|name| interface.starts_with(name))
        || is_to_node
        || evidence.networks().any(|(_, other, fact)| other.place == item.place && is_of_network(fact))
}

fn finding(item: &Item, name: &str, told: String, proof: Vec<usize>) -> Finding {
    let repair = Repair::of(&[
        ("See what the machine reaches, and how", "ip route; ip -br address"),
        (
            "Take a range for the cluster that nothing else has: a new cluster with other --pod-network-cidr and --service-cidr is the sure way; a route of a VPN can be narrowed",
            "",
        ),
    ]);
    let subject = Subject::new("Cluster", "address ranges");
    Finding::failure(subject, item, Certainty::Likely, told, proof, repair).on_node(name)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn object(value: Value) -> Item {
        Item { time: None, place: Place::Cluster, origin: String::new(), fact: Fact::Object(value) }
    }

    fn machine(name: &str, range: &str, address: &str) -> Item {
        object(json!({"kind": "Node", "metadata": {"name": name}, "spec": {"podCIDR": range},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]}}))
    }

    #[test]
    fn machines_inside_of_a_range_are_found() {
        assert_eq!(
            found_among(&RULE, [machine("one", "192.168.0.0/24", "192.168.0.10")]),
            ["192.168.0.0/24, a range of pods, contains 192.168.0.10, the address of one"]
        );
        let services = object(
            json!({"kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}}),
        );
        assert_eq!(found_among(&RULE, [machine("one", "10.244.0.0/24", "10.100.0.1"), services]).len(), 1);
        assert_eq!(found_among(&RULE, [machine("one", "10.244.0.0/24", "192.168.0.10")]), [""; 0]);
    }

    #[test]
    fn a_vpn_in_the_range_is_found_and_the_network_s_own_routes_are_not() {
        let nodes =
            || vec![machine("one", "10.42.0.0/24", "192.168.0.10"), machine("two", "10.42.1.0/24", "192.168.0.11")];
        let with = |items: Vec<Item>| found_among(&RULE, nodes().into_iter().chain(items));
        assert_eq!(with(vec![route("10.42.0.0/16", Some("10.8.0.1"), "tun0")]).len(), 1);
        let own = vec![
            route("10.42.0.0/24", None, "cni0"),
            route("10.42.1.0/24", Some("192.168.0.11"), "eth0"),
            route("10.42.1.0/24", Some("10.42.1.0"), "flannel.1"),
            route("10.42.0.7/32", None, "cali123"),
            route("192.168.0.0/24", None, "eth0"),
            route("default", Some("192.168.0.1"), "eth0"),
            route("0.0.0.0/0", Some("192.168.0.1"), "eth0"),
        ];
        assert_eq!(with(own), [""; 0]);
    }
}
