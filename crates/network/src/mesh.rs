//! Routes between nodes: this node announces its pods to the other nodes of the cluster and to configured peers, and
//! routes to what they announce.
//!
//! Invariant: only routes inside the cluster's pod ranges are taken; without the API the peers stay who they were; a start
//! takes over the routes of the process before, and gives its peers time to repeat them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::core::v1::Node;
use kedge_bgp::{LearnedRoute, PeerConfig, PeerReport, SessionState, Speaker};
use kedge_client::{Backoff, Informer, Informers};
use kedge_meta::ComponentStatus;
use tokio_util::sync::CancellationToken;

use crate::config::{Error, chain};
use crate::link::{Links, Maker};
use crate::routes::{RouteKind, RouteSpec};

/// The number that private networks use for themselves (RFC 6996).
const DEFAULT_ASN: u32 = 64512;
const MESH_METRIC: u32 = 32;
const SYNC_PERIOD: Duration = Duration::from_secs(10);
/// How long a session may take to come about before it is a problem.
const PATIENCE: Duration = Duration::from_secs(10);

/// How routes between nodes work.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// The name of this node.
    pub node_name: String,
    /// Its address.
    pub node_ip: Ipv4Addr,
    /// The autonomous system of the cluster.
    pub asn: u32,
    /// Whether all nodes are peers of each other; without that, only the configured ones are.
    pub full_mesh: bool,
    /// Peers outside, such as the routers of the place, or route reflectors.
    pub peers: Vec<PeerConfig>,
    /// The ranges of all nodes' pods: no other route is taken.
    pub cluster_cidrs: Vec<IpNet>,
    /// For how long routes outlive their session, and a start of this process.
    pub stale_for: Duration,
    /// After how many seconds of silence a session is over.
    pub hold_time: u16,
}

impl MeshConfig {
    /// A full mesh with the usual numbers.
    pub fn new(node_name: impl Into<String>, node_ip: Ipv4Addr, cluster_cidrs: Vec<IpNet>) -> Self {
        let usual = kedge_bgp::Config::new(DEFAULT_ASN, node_ip);
        Self {
            node_name: node_name.into(),
            node_ip,
            asn: usual.asn,
            full_mesh: true,
            peers: Vec::new(),
            cluster_cidrs,
            stale_for: usual.stale_for,
            hold_time: usual.hold_time,
        }
    }
}

/// What the mesh works with.
#[derive(Clone)]
pub struct MeshDeps {
    /// All nodes.
    pub nodes: Informer<Node>,
    /// Where the state is reported.
    pub status: ComponentStatus,
}

impl MeshDeps {
    /// Takes what is needed from the shared informers.
    pub fn new(informers: &Informers, status: ComponentStatus) -> Self {
        Self { nodes: informers.all(), status }
    }
}

/// The peers: every other node that has an IPv4 address, where there is a full mesh, and the configured ones.
pub fn plan_peers(config: &MeshConfig, nodes: &[impl AsRef<Node>]) -> Vec<PeerConfig> {
    let mut peers: BTreeMap<Ipv4Addr, PeerConfig> = BTreeMap::new();
    if config.full_mesh {
        let others = nodes.iter().filter(|node| node.as_ref().metadata.name.as_deref() != Some(&*config.node_name));
        for address in others.filter_map(|node| internal_ip(node.as_ref())).filter(|ip| *ip != config.node_ip) {
            peers.insert(address, PeerConfig { address, asn: config.asn, port: None });
        }
    }
    peers.extend(config.peers.iter().map(|peer| (peer.address, peer.clone())));
    peers.into_values().collect()
}

/// The kernel routes for what peers announced: what lies in the cluster's ranges and is not ours.
pub fn plan_mesh_routes(
    config: &MeshConfig,
    own: &[Ipv4Net],
    learned: &BTreeMap<Ipv4Net, LearnedRoute>,
) -> BTreeSet<RouteSpec> {
    let is_of_cluster = |prefix: &Ipv4Net| config.cluster_cidrs.iter().any(|range| range.contains(&IpNet::V4(*prefix)));
    let is_ours = |prefix: &Ipv4Net| own.iter().any(|own| own.contains(prefix) || prefix.contains(own));
    let foreign = learned.iter().filter(|(prefix, _)| is_of_cluster(prefix) && !is_ours(prefix));
    let route = |(prefix, route): (&Ipv4Net, &LearnedRoute)| RouteSpec {
        destination: IpNet::V4(prefix.trunc()),
        kind: RouteKind::Via { gateway: route.next_hop.into() },
        metric: MESH_METRIC,
    };
    foreign.map(route).collect()
}

/// Announces this node's pods and routes to those of others until `shutdown`. Routes stay when it ends.
///
/// A cluster of one node without configured peers needs no port and gets none.
pub async fn run_mesh(config: MeshConfig, deps: MeshDeps, shutdown: CancellationToken) -> Result<(), Error> {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
    let mut changes = deps.nodes.subscribe();
    let mut mesh: Option<Mesh> = None;
    deps.status.running();
    loop {
        let peers = plan_peers(&config, &deps.nodes.list());
        let delay = match round(&mut mesh, &config, &deps, &peers).await {
            Ok(()) => {
                backoff.reset();
                report(&deps.status, mesh.as_ref());
                SYNC_PERIOD
            }
            Err(error) => {
                deps.status.degraded("MeshFailed", chain(&error));
                backoff.next_delay()
            }
        };
        let mut routes = mesh.as_ref().map(|mesh| mesh.speaker.changes());
        let routes_changed = async {
            match &mut routes {
                // The speaker lives as long as the mesh.
                Some(routes) => drop(routes.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = changes.next() => {}
            () = routes_changed => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
}

struct Mesh {
    speaker: Speaker,
    links: Links,
    started: Instant,
}

async fn round(
    mesh: &mut Option<Mesh>,
    config: &MeshConfig,
    deps: &MeshDeps,
    peers: &[PeerConfig],
) -> Result<(), Error> {
    if mesh.is_none() && peers.is_empty() {
        return Ok(());
    }
    let mesh = match mesh {
        Some(mesh) => mesh,
        None => mesh.insert(Mesh::start(config).await?),
    };
    let own = own_ranges(config, deps);
    mesh.speaker.set_peers(peers.iter().cloned());
    mesh.speaker.announce(own.iter().copied());
    mesh.ensure_routes(config, &own).await
}

impl Mesh {
    async fn start(config: &MeshConfig) -> Result<Self, Error> {
        let mut speaker = kedge_bgp::Config::new(config.asn, config.node_ip);
        (speaker.stale_for, speaker.hold_time) = (config.stale_for, config.hold_time);
        let speaker = Speaker::start(speaker).await.map_err(Error::Bgp)?;
        Ok(Self { speaker, links: Links::connect()?, started: Instant::now() })
    }

    async fn ensure_routes(&self, config: &MeshConfig, own: &[Ipv4Net]) -> Result<(), Error> {
        let wanted = plan_mesh_routes(config, own, &self.speaker.routes());
        let mut found = BTreeSet::new();
        for (spec, message) in self.links.our_routes(Maker::Mesh, None).await? {
            match spec {
                Some(spec) if wanted.contains(&spec) => drop(found.insert(spec)),
                // Of the process before: its peers have not said everything yet.
                Some(spec) if self.started.elapsed() < config.stale_for && !is_replaced(&spec, &wanted) => {}
                _ => self.links.delete_route(message).await?,
            }
        }
        for route in wanted.difference(&found) {
            self.links.add_route(Maker::Mesh, route, 0).await?;
        }
        Ok(())
    }
}

fn is_replaced(spec: &RouteSpec, wanted: &BTreeSet<RouteSpec>) -> bool {
    wanted.iter().any(|route| route.destination == spec.destination)
}

/// The pod ranges of this node, as its Node says.
fn own_ranges(config: &MeshConfig, deps: &MeshDeps) -> Vec<Ipv4Net> {
    let node = deps.nodes.get(&kedge_meta::ObjectKey::cluster(config.node_name.as_str()));
    let Some(spec) = node.as_ref().and_then(|node| node.spec.as_ref()) else { return Vec::new() };
    let ranges = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    let ranges: BTreeSet<Ipv4Net> = ranges.filter_map(|range| range.parse().ok()).collect();
    ranges.into_iter().collect()
}

fn internal_ip(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    internal.filter_map(|address| address.address.parse().ok()).find_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    })
}

fn report(status: &ComponentStatus, mesh: Option<&Mesh>) {
    let peers = mesh.map(|mesh| mesh.speaker.peers()).unwrap_or_default();
    match plan_complaint(&peers, Instant::now()) {
        Some(complaint) => status.degraded("BGPPeersNotEstablished", complaint),
        None => status.running(),
    }
    status.heartbeat(None);
}

/// What is to be said of peers that have not been established for a while.
fn plan_complaint(peers: &[PeerReport], now: Instant) -> Option<String> {
    let is_late = |peer: &&PeerReport| {
        let has_failed = peer.last_error.is_some();
        peer.state != SessionState::Established && (has_failed || now.duration_since(peer.since) > PATIENCE)
    };
    let said = peers.iter().filter(is_late).map(|peer| {
        let why = peer.last_error.as_deref().unwrap_or("no answer yet");
        format!("{} (AS {}) is {}: {why}", peer.address, peer.asn, peer.state.as_str())
    });
    let said: Vec<String> = said.collect();
    (!said.is_empty()).then(|| {
        let established = peers.iter().filter(|peer| peer.state == SessionState::Established).count();
        format!("{established} of {} BGP peers are established; {}", peers.len(), said.join("; "))
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
        let node = json!({"metadata": {"name": name}, "status": {"addresses": addresses}});
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
    }

    #[test]
    fn only_routes_to_pods_of_others_are_taken() {
        let learned = |prefix: &str| {
            let peer = Ipv4Addr::new(192, 0, 2, 2);
            (prefix.parse().unwrap(), LearnedRoute { next_hop: peer, peer, is_stale: false })
        };
        let check = |prefix: &str, is_taken: bool| {
            let own = ["10.244.1.0/24".parse().unwrap()];
            let routes = plan_mesh_routes(&config(), &own, &BTreeMap::from([learned(prefix)]));
            assert_eq!(!routes.is_empty(), is_taken, "{prefix}");
        };
        check("10.244.2.0/24", true);
        check("10.244.2.7/32", true);
        check("10.244.1.0/24", false);
        check("10.244.1.128/25", false);
        check("10.244.0.0/16", false);
        check("0.0.0.0/0", false);
        check("192.0.2.0/24", false);
    }

    #[test]
    fn peers_that_are_not_established_are_named() {
        let now = Instant::now();
        let peer = |last: u8, state, last_error: Option<&str>| PeerReport {
            address: Ipv4Addr::new(192, 0, 2, last),
            asn: 64512,
            state,
            since: now,
            last_error: last_error.map(str::to_owned),
            routes: 0,
        };
        let good = peer(2, SessionState::Established, None);
        assert_eq!(plan_complaint(&[], now), None);
        assert_eq!(plan_complaint(&[good.clone(), peer(3, SessionState::Connect, None)], now), None);
        let late =
            [good, peer(3, SessionState::Active, Some("no answer from 192.0.2.3:179: is TCP port 179 blocked?"))];
        let expected = "1 of 2 BGP peers are established; 192.0.2.3 (AS 64512) is Active: no answer from 192.0.2.3:179: \
                        is TCP port 179 blocked?";
        assert_eq!(plan_complaint(&late, now).as_deref(), Some(expected));
        let waiting = [peer(3, SessionState::Connect, None)];
        assert!(plan_complaint(&waiting, now + PATIENCE * 2).unwrap().contains("no answer yet"));
    }
}
