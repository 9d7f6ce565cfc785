//! Who the peers are, and which routes follow from what they say. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
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
    /// Its address.
    pub address: Ipv4Addr,
    /// Its gateway of pods, once it has a range.
    pub gateway: Option<Ipv4Addr>,
}

/// The other nodes that have an IPv4 address of their own, by name.
pub fn plan_node_peers(config: &MeshConfig, nodes: &[impl AsRef<Node>]) -> Vec<NodePeer> {
    let mut peers: BTreeMap<Ipv4Addr, NodePeer> = BTreeMap::new();
    let mut nodes: Vec<&Node> = nodes.iter().map(AsRef::as_ref).collect();
    nodes.sort_by_key(|node| node.metadata.name.as_deref());
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let Some(address) = internal_ip(node).filter(|ip| name != config.node_name && *ip != config.node_ip) else {
            continue;
        };
        let gateway = gateway_of(&ranges(node).into_iter().collect::<Vec<_>>());
        peers.entry(address).or_insert_with(|| NodePeer { name: name.to_owned(), address, gateway });
    }
    peers.into_values().collect()
}

/// The peers of BGP: every other node, where there is a full mesh, and the configured ones.
pub fn plan_peers(config: &MeshConfig, nodes: &[impl AsRef<Node>]) -> Vec<PeerConfig> {
    let mut peers: BTreeMap<Ipv4Addr, PeerConfig> = BTreeMap::new();
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
    own: &[Ipv4Net],
    learned: &BTreeMap<Ipv4Net, LearnedRoute>,
    ways: &BTreeMap<Ipv4Addr, Way>,
) -> BTreeSet<RouteSpec> {
    let is_of_cluster = |prefix: &Ipv4Net| config.cluster_cidrs.iter().any(|range| range.contains(&IpNet::V4(*prefix)));
    let is_ours = |prefix: &Ipv4Net| own.iter().any(|own| own.contains(prefix) || prefix.contains(own));
    let foreign = learned.iter().filter(|(prefix, _)| is_of_cluster(prefix) && !is_ours(prefix));
    let route = |(prefix, route): (&Ipv4Net, &LearnedRoute)| {
        let kind = match *ways.get(&route.next_hop)? {
            Way::Via(gateway) => RouteKind::Via { gateway: gateway.into() },
            Way::Tunnel(node) => RouteKind::Tunnel { node: node.into() },
        };
        Some(RouteSpec { destination: IpNet::V4(prefix.trunc()), kind, metric: MESH_METRIC })
    };
    foreign.filter_map(route).collect()
}

/// The pod ranges of this node, as its Node says.
pub(super) fn own_ranges(config: &MeshConfig, nodes: &Informer<Node>) -> Vec<Ipv4Net> {
    let node = nodes.get(&kedge_meta::ObjectKey::cluster(config.node_name.as_str()));
    node.map(|node| ranges(&node).into_iter().collect()).unwrap_or_default()
}

/// What peers get: the pods of this node, and where some peer is outside of the cluster, the addresses of Services.
pub(super) fn plan_announced(config: &MeshConfig, own: &[Ipv4Net], addresses: &BTreeSet<Ipv4Addr>) -> Vec<Ipv4Net> {
    let addresses = addresses.iter().filter(|_| !config.peers.is_empty());
    own.iter().copied().chain(addresses.map(|address| Ipv4Net::from(*address))).collect()
}

/// The nodes that are gone as far as this one can tell: no packet arrives, and there is no session.
pub(super) fn plan_unreachable(known: &Reachability) -> BTreeSet<String> {
    let gone = known.peers.iter().filter(|peer| {
        peer.pods == PodPath::Silent && peer.session.as_deref() != Some(kedge_bgp::SessionState::Established.as_str())
    });
    gone.filter_map(|peer| peer.node.clone()).collect()
}

/// The gateway of the first range.
pub(super) fn gateway_of(ranges: &[Ipv4Net]) -> Option<Ipv4Addr> {
    match gateway(&IpNet::V4(*ranges.first()?)) {
        IpAddr::V4(gateway) => Some(gateway),
        IpAddr::V6(_) => None,
    }
}

fn ranges(node: &Node) -> BTreeSet<Ipv4Net> {
    let Some(spec) = node.spec.as_ref() else { return BTreeSet::new() };
    spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr).filter_map(|range| range.parse().ok()).collect()
}

pub(crate) fn internal_ip(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    internal.filter_map(|address| address.address.parse().ok()).find_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn config() -> MeshConfig {
        MeshConfig::new("a", Ipv4Addr::new(192, 0, 2, 1), vec!["10.244.0.0/16".parse().unwrap()])
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
        config.peers = vec![PeerConfig { address: Ipv4Addr::new(192, 0, 2, 4), asn: 64999, port: None }];
        assert_eq!(shown(&config), ["192.0.2.2 64512", "192.0.2.4 64999"]);
        config.full_mesh = false;
        assert_eq!(shown(&config), ["192.0.2.4 64999"]);
        let names: Vec<String> = plan_node_peers(&config, &nodes).into_iter().map(|peer| peer.name).collect();
        assert_eq!(names, ["b", "d"], "who is asked does not depend on who brings routes");
    }

    #[test]
    fn only_routes_to_pods_of_others_are_taken() {
        let peer = Ipv4Addr::new(192, 0, 2, 2);
        let check = |prefix: &str, way: Option<Way>, expected: Option<RouteKind>| {
            let own = ["10.244.1.0/24".parse().unwrap()];
            let learned = LearnedRoute { next_hop: peer, peer, is_stale: false };
            let ways = way.map(|way| (peer, way)).into_iter().collect();
            let learned = BTreeMap::from([(prefix.parse().unwrap(), learned)]);
            let routes = plan_mesh_routes(&config(), &own, &learned, &ways);
            assert_eq!(routes.into_iter().map(|route| route.kind).next(), expected, "{prefix}");
        };
        let via = || Some(RouteKind::Via { gateway: peer.into() });
        let way = Some(Way::Via(peer));
        check("10.244.2.0/24", way, via());
        check("10.244.2.7/32", way, via());
        check("10.244.2.0/24", Some(Way::Tunnel(peer)), Some(RouteKind::Tunnel { node: peer.into() }));
        check("10.244.2.0/24", None, None);
        check("10.244.1.0/24", way, None);
        check("10.244.1.128/25", way, None);
        check("10.244.0.0/16", way, None);
        check("0.0.0.0/0", way, None);
        check("192.0.2.0/24", way, None);
    }
}
