//! The kernel's part of the mesh: routes, and the tunnels that some of them lead into.
//!
//! Invariant: a route is never there before what it leads to is, and a tunnel's entry goes after the last route that
//! needs it; a change of a route is one step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use kedge_bgp::LearnedRoute;

use super::MeshConfig;
use super::plan::{NodePeer, plan_mesh_routes};
use crate::config::Error;
use crate::link::{Devices, Links, Maker};
use crate::mode::{VxlanConfig, Way, plan_way, tunnel_gateway};
use crate::neighbours::TunnelPeers;
use crate::routes::{RouteKind, RouteSpec};
use crate::tunnel::{ensure_tunnel, remove_tunnel, underlay_mtu};

/// Where a node's network has no MTU that says anything.
const USUAL_MTU: u32 = 1500;

pub(super) struct Kernel {
    links: Links,
    started: Instant,
    /// How each node, and each next hop, is reached.
    pub(super) ways: BTreeMap<IpAddr, Way>,
    /// Where tunnels to a node go, by each of its addresses.
    tunnel_ends: TunnelPeers,
}

impl Kernel {
    pub(super) fn connect() -> Result<Self, Error> {
        Ok(Self {
            links: Links::connect()?,
            started: Instant::now(),
            ways: BTreeMap::new(),
            tunnel_ends: TunnelPeers::new(),
        })
    }

    /// Asks the kernel how it would reach nodes and next hops.
    pub(super) async fn find_ways(
        &mut self,
        config: &MeshConfig,
        node_peers: &[NodePeer],
        learned: &BTreeMap<IpNet, LearnedRoute>,
    ) {
        let ends = node_peers.iter().flat_map(|peer| peer.addresses.iter().map(|address| (*address, peer.address)));
        self.tunnel_ends = ends.collect();
        let nodes: BTreeSet<IpAddr> = node_peers.iter().flat_map(|peer| peer.addresses.iter().copied()).collect();
        let next_hops = learned.values().map(|route| route.next_hop);
        let mut ways = BTreeMap::new();
        for address in next_hops.chain(nodes.iter().copied()).collect::<BTreeSet<_>>() {
            let hop = self.links.hop_to(address).await;
            if let Some(way) = plan_way(config.mode, address, nodes.contains(&address), hop) {
                ways.insert(address, way);
            }
        }
        self.ways = ways;
    }

    /// Whether some node is reached through a tunnel; `None` while that is not known of all.
    pub(super) fn has_tunnels(&self, node_peers: &[NodePeer]) -> Option<bool> {
        let mut ways = node_peers.iter().flat_map(|peer| &peer.addresses).map(|address| self.ways.get(address));
        match ways.clone().any(|way| matches!(way, Some(Way::Tunnel(_)))) {
            true => Some(true),
            false => ways.all(|way| way.is_some()).then_some(false),
        }
    }

    pub(super) async fn ensure_routes(
        &self,
        config: &MeshConfig,
        own: &[IpNet],
        learned: &BTreeMap<IpNet, LearnedRoute>,
    ) -> Result<(), Error> {
        let wanted = plan_mesh_routes(config, own, learned, &self.ways);
        let wanted: BTreeSet<RouteSpec> = wanted.into_iter().map(|route| self.with_tunnel_gateway(route)).collect();
        let devices = Devices { bridge: None, tunnel: self.tunnel(config, own, &wanted).await? };
        let (mut found, mut kept, mut gone) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for (spec, message) in self.links.our_routes(Maker::Mesh, devices).await? {
            match spec {
                Some(spec) if wanted.contains(&spec) => drop(found.insert(spec)),
                // Of the process before: its peers have not said everything yet.
                Some(spec) if self.started.elapsed() < config.stale_for && !is_replaced(&spec, &wanted) => {
                    kept.insert(spec);
                }
                _ => gone.push(message),
            }
        }
        let (in_tunnel, is_complete) = self.tunnel_peers(config, wanted.union(&kept));
        if let Some(device) = devices.tunnel {
            self.links.add_tunnel_peers(device, &in_tunnel).await?;
        }
        for route in wanted.difference(&found) {
            self.links.add_route(Maker::Mesh, route, devices).await?;
        }
        for message in gone {
            self.links.delete_route(message).await?;
        }
        match devices.tunnel {
            Some(_) if in_tunnel.is_empty() && is_complete => remove_tunnel(&self.links, &config.vxlan.device).await,
            Some(device) if is_complete => self.links.keep_tunnel_peers(device, &in_tunnel).await,
            _ => Ok(()),
        }
    }

    /// Gives a route of IPv6 into a tunnel the gateway that the kernel takes.
    fn with_tunnel_gateway(&self, route: RouteSpec) -> RouteSpec {
        match route.kind {
            RouteKind::Tunnel { node: IpAddr::V6(node) } => {
                let end = self.tunnel_ends.get(&node.into()).copied().unwrap_or(node.into());
                RouteSpec { kind: RouteKind::Tunnel { node: tunnel_gateway(end).into() }, ..route }
            }
            _ => route,
        }
    }

    /// Where tunnels to the nodes go that these routes lead to, and whether that is known of all: of a node that nobody
    /// knows any more, a gateway tells it only where it is of IPv4 and the tunnels too.
    fn tunnel_peers<'a>(
        &self,
        config: &MeshConfig,
        routes: impl Iterator<Item = &'a RouteSpec>,
    ) -> (TunnelPeers, bool) {
        let by_gateway: TunnelPeers =
            self.tunnel_ends.values().map(|end| (IpAddr::V6(tunnel_gateway(*end)), *end)).collect();
        let end = |gateway: &IpAddr| match gateway {
            IpAddr::V4(_) => {
                let own = config.node_ip.is_ipv4().then_some(*gateway);
                self.tunnel_ends.get(gateway).copied().or(own)
            }
            IpAddr::V6(_) => by_gateway.get(gateway).copied(),
        };
        let gateways: BTreeSet<IpAddr> = routes.filter_map(tunnelled).collect();
        let peers: TunnelPeers = gateways.iter().filter_map(|gateway| Some((*gateway, end(gateway)?))).collect();
        let is_complete = peers.len() == gateways.len();
        (peers, is_complete)
    }

    /// The tunnels' device: made where a route needs it, else the one that is there.
    async fn tunnel(
        &self,
        config: &MeshConfig,
        own: &[IpNet],
        wanted: &BTreeSet<RouteSpec>,
    ) -> Result<Option<u32>, Error> {
        if wanted.iter().any(|route| tunnelled(route).is_some()) {
            let underlay = underlay_mtu(&self.links, config.node_ip).await?.unwrap_or(USUAL_MTU);
            return ensure_tunnel(&self.links, &config.vxlan, config.node_ip, own, underlay).await.map(Some);
        }
        let link = self.links.link(&config.vxlan.device).await?;
        Ok(link.filter(|link| link.tunnel.is_some()).map(|link| link.index))
    }

    /// Removes all that was made.
    pub(super) async fn clear(&self, vxlan: &VxlanConfig) -> Result<(), Error> {
        for (_, message) in self.links.our_routes(Maker::Mesh, Devices::default()).await? {
            self.links.delete_route(message).await?;
        }
        remove_tunnel(&self.links, &vxlan.device).await
    }
}

fn is_replaced(spec: &RouteSpec, wanted: &BTreeSet<RouteSpec>) -> bool {
    wanted.iter().any(|route| route.destination == spec.destination)
}

fn tunnelled(route: &RouteSpec) -> Option<IpAddr> {
    match route.kind {
        RouteKind::Tunnel { node } => Some(node),
        _ => None,
    }
}
