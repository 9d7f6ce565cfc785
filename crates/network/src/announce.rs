//! Announces addresses of Services of type LoadBalancer: by ARP on the segment that the nodes share, one node for each
//! address; and it tells the mesh which routes its peers outside of the cluster are to get.
//!
//! Not who gives addresses out (a controller), and not what happens to packets (the proxy). Invariant: a node answers for
//! an address only while it is the one that all who hear the same nodes would choose; it never answers for another's.

mod arp;
mod plan;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_client::{Informer, Informers};
use kedge_meta::ComponentStatus;
use tokio_util::sync::CancellationToken;

use crate::agreement::Agreement;
use crate::config::Error;
use arp::{Mac, Operation};
pub use plan::POOL_ANNOTATION;
use plan::{Candidate, elect, is_announced, plan_announcers, plan_nodes};
use socket::{ArpSocket, find_segment};

/// For how long changes are collected.
const SETTLE: Duration = Duration::from_millis(100);
/// How often a node that took an address says so, for the first seconds.
const TICK: Duration = Duration::from_secs(1);
const FIRST_TIMES: u8 = 4;
/// After how many of them it says so again, for those who heard somebody else meanwhile.
const REPEAT_TICKS: u64 = 10;
/// For how long somebody else's claim is worth a complaint, which is heard again before that; two nodes may take half of it
/// to agree.
const CONFLICT: Duration = Duration::from_secs(12);
const FRAME_MAX: usize = 1514;

/// Who announces.
#[derive(Debug, Clone)]
pub struct AnnounceConfig {
    /// The name of this node.
    pub node_name: String,
    /// Its address: the device that has it is on the segment.
    pub node_ip: Ipv4Addr,
}

/// What announcing works with.
#[derive(Clone)]
pub struct AnnounceDeps {
    /// All Services.
    pub services: Informer<Service>,
    /// All EndpointSlices.
    pub endpoint_slices: Informer<EndpointSlice>,
    /// All nodes.
    pub nodes: Informer<Node>,
    /// Where the state is reported.
    pub status: ComponentStatus,
    /// What is agreed with the mesh: who is not reached, and which routes peers get.
    pub agreement: Agreement,
}

impl AnnounceDeps {
    /// Takes what is needed from the shared informers.
    pub fn new(informers: &Informers, status: ComponentStatus, agreement: Agreement) -> Self {
        Self { services: informers.all(), endpoint_slices: informers.all(), nodes: informers.all(), status, agreement }
    }
}

/// Announces until `shutdown`. Without the API those announce that did; who is not reached any more is left out all the
/// same.
pub async fn run_announce(
    config: AnnounceConfig,
    deps: AnnounceDeps,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let (mut services, mut slices) = (deps.services.subscribe(), deps.endpoint_slices.subscribe());
    let (mut nodes, mut agreed) = (deps.nodes.subscribe(), deps.agreement.listen());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut announcer = Announcer {
        config,
        deps,
        socket: None,
        problem: None,
        claims: BTreeMap::new(),
        here: BTreeSet::new(),
        ticks: 0,
    };
    let mut buffer = [0; FRAME_MAX];
    let mut look_at = Some(tokio::time::Instant::now());
    loop {
        let is_known = announcer.is_known();
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = services.next() => { look_at.get_or_insert_with(|| tokio::time::Instant::now() + SETTLE); }
            _ = slices.next() => { look_at.get_or_insert_with(|| tokio::time::Instant::now() + SETTLE); }
            _ = nodes.next() => { look_at.get_or_insert_with(|| tokio::time::Instant::now() + SETTLE); }
            // The sender lives in the dependencies.
            _ = agreed.changed() => { look_at.get_or_insert_with(tokio::time::Instant::now); }
            heard = hear(announcer.socket.as_ref(), &mut buffer) => announcer.take(heard, &buffer),
            _ = ticks.tick(), if is_known => announcer.tick(),
            () = until(look_at), if is_known => {
                look_at = None;
                announcer.choose();
            }
        }
    }
}

async fn hear(socket: Option<&ArpSocket>, buffer: &mut [u8]) -> std::io::Result<usize> {
    match socket {
        Some(socket) => socket.next(buffer).await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// An address that this node answers for.
struct Claim {
    since: Instant,
    /// How often it was announced in its first seconds.
    told: u8,
    /// Somebody else who says to have it.
    rival: Option<(Mac, Instant)>,
}

struct Announcer {
    config: AnnounceConfig,
    deps: AnnounceDeps,
    /// There while something may have to be announced.
    socket: Option<ArpSocket>,
    problem: Option<String>,
    claims: BTreeMap<Ipv4Addr, Claim>,
    /// Those among whom the latest choice was.
    here: BTreeSet<String>,
    ticks: u64,
}

impl Announcer {
    fn is_known(&self) -> bool {
        self.deps.services.is_synced() && self.deps.endpoint_slices.is_synced() && self.deps.nodes.is_synced()
    }

    /// Looks at everything again: what to announce, and whether it is this node that does.
    fn choose(&mut self) {
        let services = self.deps.services.filter(is_announced);
        if services.is_empty() {
            self.deps.agreement.say(|said| said.routes.clear());
            self.claims.clear();
            (self.socket, self.problem) = (None, None);
            return self.report();
        }
        let nodes = plan_nodes(&self.deps.nodes.list());
        let announcers = plan_announcers(&services, &self.deps.endpoint_slices.list(), &nodes);
        let own =
            |(address, able): (&Ipv4Addr, &BTreeSet<String>)| able.contains(&self.config.node_name).then_some(*address);
        let routes: BTreeSet<Ipv4Addr> = announcers.iter().filter_map(own).collect();
        self.deps.agreement.say(|said| said.routes = routes);
        self.ensure_socket();
        let here = self.nodes_here(&nodes);
        // Whoever came or went may have announced meanwhile: everybody is to hear who does now.
        let is_other_choice = here != self.here;
        self.here = here;
        self.claim(self.elected(&announcers), is_other_choice);
        self.report();
    }

    fn claim(&mut self, mine: BTreeSet<Ipv4Addr>, again: bool) {
        self.claims.retain(|address, _| mine.contains(address));
        for address in mine {
            let is_new = !self.claims.contains_key(&address);
            let new = || Claim { since: Instant::now(), told: 0, rival: None };
            let claim = self.claims.entry(address).or_insert_with(new);
            if is_new {
                tracing::info!(%address, "this node announces the address of a Service");
            }
            if is_new || again {
                claim.told = 0;
                self.announce(address);
            }
        }
    }

    /// The nodes on this segment that are there: what is announced is chosen among them.
    fn nodes_here(&self, nodes: &[Candidate]) -> BTreeSet<String> {
        let Some(socket) = &self.socket else { return BTreeSet::new() };
        let unreachable = self.deps.agreement.get().unreachable;
        let is_here = |node: &&Candidate| {
            let is_on_segment = node.address.is_some_and(|address| socket.segment.range.contains(&address));
            node.name == self.config.node_name || (is_on_segment && !unreachable.contains(&node.name))
        };
        nodes.iter().filter(is_here).map(|node| node.name.clone()).collect()
    }

    /// The addresses that this node is to answer for on its segment.
    fn elected(&self, announcers: &BTreeMap<Ipv4Addr, BTreeSet<String>>) -> BTreeSet<Ipv4Addr> {
        let is_mine = |(address, able): (&Ipv4Addr, &BTreeSet<String>)| {
            let able = able.intersection(&self.here).map(String::as_str);
            (elect(*address, able) == Some(self.config.node_name.as_str())).then_some(*address)
        };
        announcers.iter().filter_map(is_mine).collect()
    }

    /// Opens the socket, or another one where the device has changed.
    fn ensure_socket(&mut self) {
        let segment = match find_segment(self.config.node_ip) {
            Ok(Some(segment)) => segment,
            Ok(None) => {
                let address = self.config.node_ip;
                self.socket = None;
                self.problem = Some(format!("no device with hardware addresses has the node's address {address}"));
                return;
            }
            Err(error) => {
                self.problem = Some(format!("the kernel does not list its devices: {error}"));
                return;
            }
        };
        if self.socket.as_ref().is_some_and(|socket| socket.segment == segment) {
            return;
        }
        match ArpSocket::open(segment) {
            Ok(socket) => (self.socket, self.problem) = (Some(socket), None),
            Err(error) => self.problem = Some(format!("there is no raw socket for ARP: {error}")),
        }
    }

    fn announce(&self, address: Ipv4Addr) {
        let Some(socket) = &self.socket else { return };
        arp::announcements(socket.segment.mac, address).iter().for_each(|frame| socket.send(frame));
    }

    /// Repeats announcements, and asks whether somebody else has these addresses.
    fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        let is_repeat = self.ticks.is_multiple_of(REPEAT_TICKS);
        if is_repeat && (!self.claims.is_empty() || self.problem.is_some()) {
            self.ensure_socket();
        }
        let due: Vec<Ipv4Addr> = self
            .claims
            .iter_mut()
            .filter_map(|(address, claim)| {
                let is_first = claim.told < FIRST_TIMES;
                claim.told = claim.told.saturating_add(1);
                (is_first || is_repeat).then_some(*address)
            })
            .collect();
        for address in due {
            self.announce(address);
            if let Some(socket) = &self.socket {
                socket.send(&arp::probe(socket.segment.mac, address));
            }
        }
        self.report();
    }

    fn take(&mut self, heard: std::io::Result<usize>, buffer: &[u8]) {
        let length = match heard {
            Ok(length) => length,
            Err(error) => {
                // A device that went down, mostly; the next look opens another.
                tracing::debug!(%error, "ARP is not heard");
                self.problem = Some(format!("ARP is not heard: {error}"));
                self.socket = None;
                return;
            }
        };
        let (Some(socket), Some(arp)) = (&self.socket, buffer.get(..length).and_then(arp::read)) else { return };
        if arp.sender == socket.segment.mac {
            return;
        }
        if let Some(claim) = self.claims.get_mut(&arp.sender_ip) {
            claim.rival = Some((arp.sender, Instant::now()));
        }
        if arp.operation == Operation::Request
            && arp.sender_ip != arp.target_ip
            && self.claims.contains_key(&arp.target_ip)
        {
            socket.send(&arp::reply(socket.segment.mac, arp.target_ip, &arp));
        }
    }

    fn report(&self) {
        let is_contested = |claim: &Claim| {
            let (mac, heard) = claim.rival?;
            (heard.elapsed() < CONFLICT && heard.duration_since(claim.since) > CONFLICT / 2).then_some(mac)
        };
        let rival = self.claims.iter().find_map(|(address, claim)| Some((address, is_contested(claim)?)));
        match (&self.problem, rival) {
            (Some(problem), _) => {
                self.deps
                    .status
                    .degraded("AddressesNotAnnounced", format!("addresses of Services are not announced: {problem}"));
            }
            (None, Some((address, mac))) => {
                let mac = arp::show(mac);
                let message = format!("{address} is announced by this node, and {mac} says to have it too");
                self.deps.status.degraded("AddressConflict", message);
            }
            (None, None) => self.deps.status.running(),
        }
        self.deps.status.heartbeat(None);
    }
}
