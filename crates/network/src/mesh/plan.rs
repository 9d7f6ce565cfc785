//! Who the peers are, and which routes follow from what they say. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kedge_bgp::{LearnedRoute, PeerConfig};
use kedge_client::Informer;

use super::MeshConfig;
use crate::mode::Way;
use crate::reach::{PodPath, Reachability};
use crate::routes::{RouteKind, RouteSpec, gateway};

const MESH_METRIC: u32 = 32;

/// Another node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePeer {
    /// Its name.
    pub name: String,
    /// Its address of our primary family, by which it is known.
    pub address: IpAddr,
    /// All its addresses of the families that we have.
    pub addresses: Vec<IpAddr>,
    /// Its gateways of pods, one for each family, once it has ranges.
    pub gateways: Vec<IpAddr>,
}

/// The other nodes that have an address of our primary family of their own, by name.
pub fn plan_node_peers(config: &MeshConfig, nodes: &[impl AsRef<Node>]) -> Vec<NodePeer> {
    let mut peers: BTreeMap<IpAddr, NodePeer> = BTreeMap::new();
    let mut nodes: Vec<&Node> = nodes.iter().map(AsRef::as_ref).collect();
    nodes.sort_by_key(|node| node.metadata.name.as_deref());
    let families: Vec<bool> = config.node_ips().map(|ip| ip.is_ipv6()).collect();
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let primary = internal_ip(node, config.node_ip.is_ipv6());
        let Some(address) = primary.filter(|ip| name != config.node_name && *ip != config.node_ip) else {
            continue;
        };
        let addresses = families.iter().filter_map(|ipv6| internal_ip(node, *ipv6)).collect();
        let ranges: Vec<IpNet> = ranges(node).into_iter().collect();
        let gateways = families.iter().filter_map(|ipv6| gateway_of(&ranges, *ipv6)).collect();
        peers.entry(address).or_insert_with(|| NodePeer { name: name.to_owned(), address, addresses, gateways });
    }
    peers.into_values().collect()
}

/// The peers of BGP: every other node, where there is a full mesh, and the configured ones.
pub fn plan_peers(config: &MeshConfig, nodes: &[impl AsRef<Node>]) -> Vec<PeerConfig> {
    let mut peers: BTreeMap<IpAddr, PeerConfig> = BTreeMap::new();
    if config.full_mesh {
        let others = plan_node_peers(config, nodes).into_iter();
        peers.extend(
            others.map(|NodePeer { address, .. }| (address, PeerConfig { address, asn: config.asn, port: None })),
        );
    }
    peers.extend(config.peers.iter().map(|peer| (peer.address, peer.clone())));
    peers.into_values().collect()
}

/// The kernel routes for what peers announced: what lies in the cluster's ranges, is not ours, and can be reached.
pub fn plan_mesh_routes(
    config: &MeshConfig,
    own: &[IpNet],
    learned: &BTreeMap<IpNet, LearnedRoute>,
    ways: &BTreeMap<IpAddr, Way>,
) -> BTreeSet<RouteSpec> {
    let is_of_cluster = |prefix: &IpNet| config.cluster_cidrs.iter().any(|range| range.contains(prefix));
    let is_ours = |prefix: &IpNet| own.iter().any(|own| own.contains(prefix) || prefix.contains(own));
    let foreign = learned.iter().filter(|(prefix, _)| is_of_cluster(prefix) && !is_ours(prefix));
    let route = |(prefix, route): (&IpNet, &LearnedRoute)| {
        let kind = match *ways.get(&route.next_hop)? {
            Way::Via(gateway) => RouteKind::Via { gateway },
            Way::Tunnel(node) => RouteKind::Tunnel { node },
        };
        Some(RouteSpec { destination: prefix.trunc(), kind, metric: MESH_METRIC })
    };
    foreign.filter_map(route).collect()
}

/// The pod ranges of this node, as its Node says.
pub(super) fn own_ranges(config: &MeshConfig, nodes: &Informer<Node>) -> Vec<IpNet> {
    let node = nodes.get(&kedge_meta::ObjectKey::cluster(config.node_name.as_str()));
    node.map(|node| ranges(&node).into_iter().collect()).unwrap_or_default()
}

/// What peers get: the pods of this node, and where some peer is outside of the cluster, the addresses of Services.
pub(super) fn plan_announced(config: &MeshConfig, own: &[IpNet], addresses: &BTreeSet<Ipv4Addr>) -> Vec<IpNet> {
    let addresses = addresses.iter().filter(|_| !config.peers.is_empty());
    own.iter().copied().chain(addresses.map(|address| IpNet::from(IpAddr::V4(*address)))).collect()
}

/// The nodes that are gone as far as this one can tell: no packet arrives, and there is no session.
pub(super) fn plan_unreachable(known: &Reachability) -> BTreeSet<String> {
    let gone = known.peers.iter().filter(|peer| {
        peer.pods == PodPath::Silent && peer.session.as_deref() != Some(kedge_bgp::SessionState::Established.as_str())
    });
    gone.filter_map(|peer| peer.node.clone()).collect()
}

/// The gateway of the first range of a family.
pub(super) fn gateway_of(ranges: &[IpNet], ipv6: bool) -> Option<IpAddr> {
    ranges.iter().find(|range| range.addr().is_ipv6() == ipv6).map(gateway)
}

fn ranges(node: &Node) -> BTreeSet<IpNet> {
    let Some(spec) = node.spec.as_ref() else { return BTreeSet::new() };
    spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr).filter_map(|range| range.parse().ok()).collect()
}

pub(crate) fn internal_ip(node: &Node, ipv6: bool) -> Option<IpAddr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    internal.filter_map(|address| address.address.parse::<IpAddr>().ok()).find(|address| address.is_ipv6() == ipv6)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn config() -> MeshConfig {
        MeshConfig::new("a", "192.0.2.1".parse().unwrap(), vec!["10.244.0.0/16".parse().unwrap()])
    }

    fn node(name: &str, address: &str) -> Arc<Node> {
        let addresses = json!([{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]);
        let node = json!({
            "metadata": {"name": name},
            "spec": {"podCIDRs": [format!("10.244.{}.0/24", name.len())]},
            "status": {"addresses": addresses},
        });
        Arc::new(serde_json::from_value(node).unwrap())
    }

    #[test]
    fn peers_are_the_other_nodes_and_the_configured_ones() {
        let nodes = [node("a", "192.0.2.1"), node("b", "192.0.2.2"), node("c", "fd00::3"), node("d", "192.0.2.4")];
        let shown = |config: &MeshConfig| -> Vec<String> {
            plan_peers(config, &nodes).iter().map(|peer| format!("{} {}", peer.address, peer.asn)).collect()
        };
        let mut config = config();
        assert_eq!(shown(&config), ["192.0.2.2 64512", "192.0.2.4 64512"]);
        config.peers = vec![PeerConfig { address: "192.0.2.4".parse().unwrap(), asn: 64999, port: None }];
        assert_eq!(shown(&config), ["192.0.2.2 64512", "192.0.2.4 64999"]);
        config.full_mesh = false;
        assert_eq!(shown(&config), ["192.0.2.4 64999"]);
        let names: Vec<String> = plan_node_peers(&config, &nodes).into_iter().map(|peer| peer.name).collect();
        assert_eq!(names, ["b", "d"], "who is asked does not depend on who brings routes");
    }

    #[test]
    fn nodes_have_an_address_and_a_gateway_of_each_family() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "b"},
            "spec": {"podCIDRs": ["10.244.2.0/24", "fd00:10:244:2::/64"]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "192.0.2.2"}, {"type": "InternalIP", "address": "fd00::2"},
            ]},
        }))
        .unwrap();
        let shown = |config: &MeshConfig| {
            let peers = plan_node_peers(config, &[Arc::new(node.clone())]);
            format!("{} {:?} {:?}", peers[0].address, peers[0].addresses, peers[0].gateways)
        };
        let mut config = config();
        assert_eq!(shown(&config), "192.0.2.2 [192.0.2.2] [10.244.2.1]");
        config.second_node_ip = Some("fd00::1".parse().unwrap());
        assert_eq!(shown(&config), "192.0.2.2 [192.0.2.2, fd00::2] [10.244.2.1, fd00:10:244:2::1]");
        (config.node_ip, config.second_node_ip) = ("fd00::1".parse().unwrap(), None);
        assert_eq!(shown(&config), "fd00::2 [fd00::2] [fd00:10:244:2::1]");
    }

    #[test]
    fn only_routes_to_pods_of_others_are_taken() {
        let peer: IpAddr = "192.0.2.2".parse().unwrap();
        let check = |prefix: &str, way: Option<Way>, expected: Option<RouteKind>| {
            let own = ["10.244.1.0/24".parse().unwrap()];
            let learned = LearnedRoute { next_hop: peer, peer, is_stale: false };
            let ways = way.map(|way| (peer, way)).into_iter().collect();
            let learned = BTreeMap::from([(prefix.parse().unwrap(), learned)]);
            let routes = plan_mesh_routes(&config(), &own, &learned, &ways);
            assert_eq!(routes.into_iter().map(|route| route.kind).next(), expected, "{prefix}");
        };
        let via = || Some(RouteKind::Via { gateway: peer });
        let way = Some(Way::Via(peer));
        check("10.244.2.0/24", way, via());
        check("10.244.2.7/32", way, via());
        check("10.244.2.0/24", Some(Way::Tunnel(peer)), Some(RouteKind::Tunnel { node: peer }));
        check("10.244.2.0/24", None, None);
        check("10.244.1.0/24", way, None);
        check("10.244.1.128/25", way, None);
        check("10.244.0.0/16", way, None);
        check("0.0.0.0/0", way, None);
        check("192.0.2.0/24", way, None);
    }
}
