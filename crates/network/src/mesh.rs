//! Routes between nodes: this node announces its pods to the other nodes of the cluster and to configured peers, and
//! routes to what they announce, through tunnels where a router is between. It finds out whether packets arrive.
//!
//! Invariant: only routes inside the cluster's pod ranges are taken; without the API the peers stay who they were; a start
//! takes over the routes of the process before, and gives its peers time to repeat them.

mod kernel;
mod plan;
mod report;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kedge_bgp::{PeerConfig, Speaker};
use kedge_client::{Backoff, Informer, Informers};
use kedge_meta::{Clock, ComponentState, ComponentStatus, SystemClock};
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::agreement::Agreement;
use crate::config::{Error, chain};
use crate::mode::{NetworkMode, VxlanConfig};
use crate::probe::{Prober, Targets};
use crate::publish::{NodePublisher, write_reachability};
use crate::reach::{Reachability, keep_times};

use kernel::Kernel;
pub(crate) use plan::internal_ip;
pub use plan::{NodePeer, plan_mesh_routes, plan_node_peers, plan_peers};
use plan::{own_ranges, plan_announced, plan_unreachable};
use report::{Problem, plan_problems, plan_reachability};

/// The number that private networks use for themselves (RFC 6996).
pub const DEFAULT_ASN: u32 = 64512;
const SYNC_PERIOD: Duration = Duration::from_secs(5);

/// How routes between nodes work.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// The name of this node.
    pub node_name: String,
    /// Its address.
    pub node_ip: IpAddr,
    /// Its address of the other family, if it has one.
    pub second_node_ip: Option<IpAddr>,
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
    /// How packets get to other nodes.
    pub mode: NetworkMode,
    /// What tunnels look like.
    pub vxlan: VxlanConfig,
    /// Where the reachability of peers is kept as a file; nowhere where absent.
    pub state_dir: Option<PathBuf>,
}

impl MeshConfig {
    /// A full mesh with the usual numbers.
    pub fn new(node_name: impl Into<String>, node_ip: IpAddr, cluster_cidrs: Vec<IpNet>) -> Self {
        let usual = kedge_bgp::Config::new(DEFAULT_ASN, vec![node_ip]);
        Self {
            node_name: node_name.into(),
            node_ip,
            second_node_ip: None,
            asn: usual.asn,
            full_mesh: true,
            peers: Vec::new(),
            cluster_cidrs,
            stale_for: usual.stale_for,
            hold_time: usual.hold_time,
            mode: NetworkMode::default(),
            vxlan: VxlanConfig::default(),
            state_dir: None,
        }
    }
}

impl MeshConfig {
    /// The node's addresses, the primary first.
    pub(crate) fn node_ips(&self) -> impl Iterator<Item = IpAddr> + use<> {
        std::iter::once(self.node_ip).chain(self.second_node_ip)
    }
}

/// What the mesh works with.
#[derive(Clone)]
pub struct MeshDeps {
    /// All nodes.
    pub nodes: Informer<Node>,
    /// Where the state is reported.
    pub status: ComponentStatus,
    /// What is agreed with the node's own part of the network.
    pub agreement: Agreement,
    /// With whom the reachability of peers is kept, as an annotation of the Node; nobody where absent.
    pub client: Option<Client>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl MeshDeps {
    /// Takes what is needed from the shared informers.
    pub fn new(informers: &Informers, status: ComponentStatus) -> Self {
        let client = Some(informers.client().clone());
        Self { nodes: informers.all(), status, agreement: Agreement::default(), client, clock: Arc::new(SystemClock) }
    }
}

/// Announces this node's pods and routes to those of others until `shutdown`. Routes stay when it ends.
///
/// A cluster of one node without configured peers needs no port and gets none; nor does one with another network.
pub async fn run_mesh(config: MeshConfig, deps: MeshDeps, shutdown: CancellationToken) -> Result<(), Error> {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
    let mut node_changes = deps.nodes.subscribe();
    let mut agreed = deps.agreement.listen();
    let mut run = Run::new(config, deps);
    run.deps.status.running();
    loop {
        // From before the round, so that nothing is missed that happens in it.
        let before = run.mesh.is_some().then(|| run.news());
        let delay = match run.round().await {
            Ok(()) => {
                backoff.reset();
                SYNC_PERIOD
            }
            Err(error) => {
                run.deps.status.degraded("MeshFailed", chain(&error));
                backoff.next_delay()
            }
        };
        let news = before.unwrap_or_else(|| run.news());
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = node_changes.next() => {}
            // The sender lives in the dependencies.
            _ = agreed.changed() => {}
            () = news => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
}

struct Run {
    config: MeshConfig,
    deps: MeshDeps,
    mesh: Option<Mesh>,
    publisher: Option<NodePublisher>,
    known: Reachability,
}

struct Mesh {
    speaker: Speaker,
    kernel: Kernel,
    prober: Prober,
}

impl Run {
    fn new(config: MeshConfig, deps: MeshDeps) -> Self {
        let publisher = deps.client.clone().map(|client| NodePublisher::start(client, &config.node_name));
        Self { config, deps, mesh: None, publisher, known: Reachability::default() }
    }

    async fn round(&mut self) -> Result<(), Error> {
        if let Some(file) = self.deps.agreement.get().foreign {
            return self.give_way(&file).await;
        }
        let nodes = self.deps.nodes.list();
        let peers = plan_peers(&self.config, &nodes);
        if self.mesh.is_none() && peers.is_empty() {
            // Without the API nobody knows whether there are other nodes.
            let is_alone = self.deps.nodes.is_synced().then_some(false);
            self.deps.agreement.say(|said| said.has_tunnels = is_alone.or(said.has_tunnels));
            self.tell(&plan_problems(&self.config, &nodes, &[], &self.known, std::time::Instant::now()));
            return Ok(());
        }
        let mesh = match &mut self.mesh {
            Some(mesh) => mesh,
            None => self.mesh.insert(Mesh::start(&self.config).await?),
        };
        let own = own_ranges(&self.config, &self.deps.nodes);
        mesh.speaker.set_peers(peers.iter().cloned());
        mesh.speaker.announce(plan_announced(&self.config, &own, &self.deps.agreement.get().routes));
        let node_peers = plan_node_peers(&self.config, &nodes);
        let ensured = mesh.ensure(&self.config, &self.deps.agreement, &own, &node_peers).await;
        self.publish(&node_peers)?;
        let reports = self.mesh.as_ref().map(|mesh| mesh.speaker.peers()).unwrap_or_default();
        ensured?;
        self.tell(&plan_problems(&self.config, &nodes, &reports, &self.known, std::time::Instant::now()));
        Ok(())
    }

    /// Another network makes its own routes.
    async fn give_way(&mut self, file: &str) -> Result<(), Error> {
        if let Some(mesh) = self.mesh.take() {
            mesh.speaker.leave();
            mesh.kernel.clear(&self.config.vxlan).await?;
        }
        self.known = Reachability { node: self.config.node_name.clone(), peers: Vec::new() };
        self.deps.agreement.say(|said| said.unreachable.clear());
        if let Some(publisher) = &self.publisher {
            publisher.annotate(&self.known);
        }
        let message = format!("{file} is another network's, which makes routes of its own");
        self.deps.status.set(ComponentState::Running, "ForeignCNIConfiguration", message);
        self.deps.status.heartbeat(None);
        Ok(())
    }

    fn publish(&mut self, node_peers: &[NodePeer]) -> Result<(), Error> {
        let Some(mesh) = &self.mesh else { return Ok(()) };
        let (reports, paths) = (mesh.speaker.peers(), mesh.prober.results());
        let mut new = plan_reachability(
            &self.config.node_name,
            node_peers,
            &reports,
            &mesh.kernel.ways,
            &paths,
            self.deps.clock.now(),
        );
        keep_times(&mut new, &self.known);
        let unreachable = plan_unreachable(&new);
        self.deps.agreement.say(|said| said.unreachable = unreachable);
        let is_news = new != self.known;
        self.known = new;
        if let Some(state_dir) = self.config.state_dir.as_ref().filter(|_| is_news) {
            write_reachability(state_dir, &self.known)?;
        }
        if let Some(publisher) = &self.publisher {
            publisher.annotate(&self.known);
        }
        Ok(())
    }

    fn tell(&self, problems: &[Problem]) {
        match problems.first() {
            None => self.deps.status.running(),
            Some(first) => {
                let texts: Vec<&str> = problems.iter().map(|problem| problem.text.as_str()).collect();
                self.deps.status.degraded(first.reason, texts.join("; "));
            }
        }
        self.deps.status.heartbeat(None);
    }

    /// Returns when a peer, a route or a path has changed.
    fn news(&self) -> impl Future<Output = ()> + use<> {
        let receivers = self.mesh.as_ref().map(|mesh| (mesh.speaker.changes(), mesh.prober.changes()));
        async move {
            match receivers {
                // Both senders live as long as the mesh, or report their end as news.
                Some((mut sessions, mut paths)) => tokio::select! {
                    _ = sessions.changed() => {}
                    Ok(()) = paths.changed() => {}
                },
                None => std::future::pending().await,
            }
        }
    }
}

impl Mesh {
    async fn start(config: &MeshConfig) -> Result<Self, Error> {
        let mut speaker = kedge_bgp::Config::new(config.asn, config.node_ips().collect());
        (speaker.stale_for, speaker.hold_time) = (config.stale_for, config.hold_time);
        let speaker = Speaker::start(speaker).await.map_err(Error::Bgp)?;
        Ok(Self { speaker, kernel: Kernel::connect()?, prober: Prober::start() })
    }

    /// Makes the kernel's routes those that were learned, and asks the nodes whether packets arrive.
    async fn ensure(
        &mut self,
        config: &MeshConfig,
        agreement: &Agreement,
        own: &[IpNet],
        node_peers: &[NodePeer],
    ) -> Result<(), Error> {
        let learned = self.speaker.routes();
        self.kernel.find_ways(config, node_peers, &learned).await;
        if let Some(has_tunnels) = self.kernel.has_tunnels(node_peers) {
            agreement.say(|said| said.has_tunnels = Some(has_tunnels));
        }
        let ensured = self.kernel.ensure_routes(config, own, &learned).await;
        let targets = Targets {
            from: config.node_ips().filter_map(|ip| plan::gateway_of(own, ip.is_ipv6())).collect(),
            to: node_peers.iter().flat_map(|peer| peer.gateways.iter().copied()).collect(),
            mtu: agreement.get().mtu,
        };
        self.prober.set_targets(targets);
        ensured
    }
}
