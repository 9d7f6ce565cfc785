//! The kernel's part of the mesh: routes, and the tunnels that some of them lead into.
//!
//! Invariant: a route is never there before what it leads to is, and a tunnel's entry goes after the last route that
//! needs it; a change of a route is one step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use ipnet::Ipv4Net;
use kedge_bgp::LearnedRoute;

use super::MeshConfig;
use super::plan::{NodePeer, plan_mesh_routes};
use crate::config::Error;
use crate::link::{Devices, Links, Maker};
use crate::mode::{VxlanConfig, Way, plan_way};
use crate::routes::{RouteKind, RouteSpec};
use crate::tunnel::{ensure_tunnel, remove_tunnel, underlay_mtu};

/// Where a node's network has no MTU that says anything.
const USUAL_MTU: u32 = 1500;

pub(super) struct Kernel {
    links: Links,
    started: Instant,
    /// How each node, and each next hop, is reached.
    pub(super) ways: BTreeMap<Ipv4Addr, Way>,
}

impl Kernel {
    pub(super) fn connect() -> Result<Self, Error> {
        Ok(Self { links: Links::connect()?, started: Instant::now(), ways: BTreeMap::new() })
    }

    /// Asks the kernel how it would reach nodes and next hops.
    pub(super) async fn find_ways(
        &mut self,
        config: &MeshConfig,
        node_peers: &[NodePeer],
        learned: &BTreeMap<Ipv4Net, LearnedRoute>,
    ) {
        let nodes: BTreeSet<Ipv4Addr> = node_peers.iter().map(|peer| peer.address).collect();
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
        let mut ways = node_peers.iter().map(|peer| self.ways.get(&peer.address));
        match ways.clone().any(|way| matches!(way, Some(Way::Tunnel(_)))) {
            true => Some(true),
            false => ways.all(|way| way.is_some()).then_some(false),
        }
    }

    pub(super) async fn ensure_routes(
        &self,
        config: &MeshConfig,
        own: &[Ipv4Net],
        learned: &BTreeMap<Ipv4Net, LearnedRoute>,
    ) -> Result<(), Error> {
        let wanted = plan_mesh_routes(config, own, learned, &self.ways);
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
        let in_tunnel: BTreeSet<Ipv4Addr> = wanted.union(&kept).filter_map(tunnelled).collect();
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
            Some(_) if in_tunnel.is_empty() => remove_tunnel(&self.links, &config.vxlan.device).await,
            Some(device) => self.links.keep_tunnel_peers(device, &in_tunnel).await,
            None => Ok(()),
        }
    }

    /// The tunnels' device: made where a route needs it, else the one that is there.
    async fn tunnel(
        &self,
        config: &MeshConfig,
        own: &[Ipv4Net],
        wanted: &BTreeSet<RouteSpec>,
    ) -> Result<Option<u32>, Error> {
        if wanted.iter().any(|route| tunnelled(route).is_some()) {
            let underlay = underlay_mtu(&self.links, IpAddr::V4(config.node_ip)).await?.unwrap_or(USUAL_MTU);
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

fn tunnelled(route: &RouteSpec) -> Option<Ipv4Addr> {
    match route.kind {
        RouteKind::Tunnel { node: IpAddr::V4(node) } => Some(node),
        _ => None,
    }
}
