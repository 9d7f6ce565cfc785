//! The speaker: a listener, a session for each peer, and what they learned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::connection::Families;
use crate::message::NextHops;
use crate::report::{PeerReport, SessionState};
use crate::rib::{LearnedRoute, Rib};
use crate::session::{Command, Session};

/// The port of BGP.
pub(crate) const PORT: u16 = 179;
const COMMANDS_MAX: usize = 64;

/// Who we are.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our autonomous system.
    pub asn: u32,
    /// Our addresses, at most one of each family, the primary first: where we listen, from where we connect, and the next
    /// hops of what we announce.
    pub addresses: Vec<IpAddr>,
    /// The port, of the listener and of peers that have none of their own.
    pub port: u16,
    /// After how many seconds of silence a session is over.
    pub hold_time: u16,
    /// How long after a failure we try again, in seconds.
    pub retry_after: u16,
    /// For how long the routes of a broken session stay.
    pub stale_for: Duration,
}

impl Config {
    /// The usual times: silence is noticed after nine seconds, routes outlive a restart of two minutes.
    pub fn new(asn: u32, addresses: Vec<IpAddr>) -> Self {
        Self { asn, addresses, port: PORT, hold_time: 9, retry_after: 2, stale_for: Duration::from_secs(120) }
    }
}

impl Config {
    /// Our address of a family.
    pub(crate) fn address(&self, ipv6: bool) -> Option<IpAddr> {
        self.addresses.iter().find(|address| address.is_ipv6() == ipv6).copied()
    }

    pub(crate) fn next_hops(&self) -> NextHops {
        let mut next_hops = NextHops::default();
        for address in &self.addresses {
            match address {
                IpAddr::V4(address) => next_hops.ipv4 = Some(*address),
                IpAddr::V6(address) => next_hops.ipv6 = Some(*address),
            }
        }
        next_hops
    }

    pub(crate) fn families(&self) -> Families {
        Families { ipv4: self.address(false).is_some(), ipv6: self.address(true).is_some() }
    }

    /// An identifier has four bytes, also where nobody has an address of four: then they are made from the other one.
    pub(crate) fn router_id(&self) -> Ipv4Addr {
        match (self.address(false), self.address(true)) {
            (Some(IpAddr::V4(address)), _) => address,
            (_, Some(IpAddr::V6(address))) => {
                let mixed = address
                    .octets()
                    .iter()
                    .fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
                Ipv4Addr::from_bits(mixed.max(1))
            }
            _ => Ipv4Addr::UNSPECIFIED,
        }
    }
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerConfig {
    /// Its address.
    pub address: IpAddr,
    /// Its autonomous system.
    pub asn: u32,
    /// Its port, where that is not ours.
    pub port: Option<u16>,
}

/// Why there is no speaker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is taken, or the address is not ours.
    #[error("cannot listen for BGP on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// What sessions share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

struct State {
    rib: Rib,
    reports: BTreeMap<IpAddr, PeerReport>,
    announced: BTreeSet<IpNet>,
}

impl Shared {
    /// Changes the routes.
    pub(crate) fn routes<R>(&self, change: impl FnOnce(&mut Rib) -> R) -> R {
        let result = change(&mut self.state.lock().rib);
        self.changed.send_modify(|version| *version += 1);
        result
    }

    pub(crate) fn announced(&self) -> BTreeSet<IpNet> {
        self.state.lock().announced.clone()
    }

    /// Takes note of the state of a session, if it is another than before.
    pub(crate) fn report(&self, address: IpAddr, session: SessionState, error: Option<String>) {
        let mut state = self.state.lock();
        let Some(report) = state.reports.get_mut(&address) else { return };
        let is_news = report.state != session || (error.is_some() && error != report.last_error);
        if report.state != session {
            report.state = session;
            report.since = Instant::now();
        }
        if session == SessionState::Established {
            report.last_error = None;
        } else if error.is_some() {
            report.last_error = error;
        }
        drop(state);
        if is_news {
            self.changed.send_modify(|version| *version += 1);
        }
    }
}

struct Running {
    config: PeerConfig,
    commands: mpsc::Sender<Command>,
}

/// A speaker. Its sessions end with it; routes that peers learned from it stay with them for as long as they keep stale
/// ones, unless [`leave`](Self::leave) says goodbye.
pub struct Speaker {
    shared: Arc<Shared>,
    running: Arc<Mutex<BTreeMap<IpAddr, Running>>>,
    runtime: Handle,
    stop: CancellationToken,
}

impl Speaker {
    /// Listens; there are no peers and nothing to announce yet.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let mut listeners = Vec::new();
        for address in &config.addresses {
            let address = SocketAddr::new(*address, config.port);
            listeners.push(TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?);
        }
        let state = State { rib: Rib::new(config.stale_for), reports: BTreeMap::new(), announced: BTreeSet::new() };
        let shared = Arc::new(Shared { config, state: Mutex::new(state), changed: watch::Sender::new(0) });
        let running = Arc::new(Mutex::new(BTreeMap::new()));
        let stop = CancellationToken::new();
        for listener in listeners {
            tokio::spawn(accept(listener, running.clone(), stop.clone()));
        }
        tokio::spawn(expire(shared.clone(), stop.clone()));
        Ok(Self { shared, running, runtime: Handle::current(), stop })
    }

    /// These are the peers from now on. Sessions with those that stay are not touched; the others get a goodbye.
    pub fn set_peers(&self, peers: impl IntoIterator<Item = PeerConfig>) {
        let wanted: BTreeMap<IpAddr, PeerConfig> = peers.into_iter().map(|peer| (peer.address, peer)).collect();
        let mut running = self.running.lock();
        let gone: Vec<IpAddr> = running
            .iter()
            .filter(|(address, peer)| wanted.get(*address) != Some(&peer.config))
            .map(|(address, _)| *address)
            .collect();
        let mut is_news = false;
        for address in gone {
            // The session ends when nobody can give it commands any more.
            running.remove(&address);
            let mut state = self.shared.state.lock();
            state.reports.remove(&address);
            state.rib.forget(address);
            is_news = true;
        }
        for (address, config) in wanted {
            if running.contains_key(&address) {
                continue;
            }
            is_news = true;
            let report = PeerReport {
                address,
                asn: config.asn,
                state: SessionState::Idle,
                since: Instant::now(),
                last_error: None,
                routes: 0,
            };
            self.shared.state.lock().reports.insert(address, report);
            let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
            let session = Session::new(config.clone(), self.shared.clone(), receiver);
            self.runtime.spawn(session.run(self.stop.clone()));
            running.insert(address, Running { config, commands });
        }
        drop(running);
        if is_news {
            self.shared.changed.send_modify(|version| *version += 1);
        }
    }

    /// These prefixes are reached through us from now on.
    pub fn announce(&self, prefixes: impl IntoIterator<Item = IpNet>) {
        let prefixes: BTreeSet<IpNet> = prefixes.into_iter().collect();
        let mut state = self.shared.state.lock();
        if state.announced == prefixes {
            return;
        }
        state.announced = prefixes;
        drop(state);
        for peer in self.running.lock().values() {
            // A session that is so far behind looks at what is announced when it gets to it.
            let _ = peer.commands.try_send(Command::Announce);
        }
    }

    /// What is known of each peer.
    pub fn peers(&self) -> Vec<PeerReport> {
        let state = self.shared.state.lock();
        let reports = state.reports.values().cloned();
        reports.map(|report| PeerReport { routes: state.rib.count(report.address), ..report }).collect()
    }

    /// Where each learned prefix is reached.
    pub fn routes(&self) -> BTreeMap<IpNet, LearnedRoute> {
        self.shared.state.lock().rib.best()
    }

    /// Changes whenever a peer or a route does.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Says goodbye to all peers: they drop our routes at once.
    pub fn leave(&self) {
        self.set_peers([]);
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Hands connections to the sessions of those who connect; strangers are turned away.
async fn accept(listener: TcpListener, running: Arc<Mutex<BTreeMap<IpAddr, Running>>>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => hand_over(&running, stream, from),
            Err(error) => {
                tracing::warn!(%error, "a BGP connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn hand_over(running: &Mutex<BTreeMap<IpAddr, Running>>, stream: TcpStream, from: SocketAddr) {
    let address = from.ip().to_canonical();
    let commands = running.lock().get(&address).map(|peer| peer.commands.clone());
    match commands {
        // A peer that connects faster than we look is turned away.
        Some(commands) => drop(commands.try_send(Command::Accept(stream))),
        None => tracing::info!(%address, "a stranger asked for a BGP session"),
    }
}

async fn expire(shared: Arc<Shared>, stop: CancellationToken) {
    let mut changes = shared.changed.subscribe();
    loop {
        let (next, before) = {
            let mut state = shared.state.lock();
            let before = state.rib.best().len();
            (state.rib.expire(Instant::now()), before)
        };
        if shared.state.lock().rib.best().len() != before {
            shared.changed.send_modify(|version| *version += 1);
        }
        let wait = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = wait => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}
