//! Asks every other node whether packets of pods arrive, in each IP family: ICMP echo from this node's gateway of pods to the other's, small
//! ones and ones of the pods' full size that may not be cut. The kernel answers, so that nothing has to listen.
//!
//! Not a judge of nodes that were just added: silence is said after some rounds only.
//!
//! Invariant: bounded work a round; a socket that can't be had leaves everything unknown, and is said.

mod packet;
mod packet6;
mod state;

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use packet::{Echo, Kind, read_echo, write_request};
pub(crate) use state::PathWatch;

use crate::reach::PodPath;

/// How often every peer is asked; with the rounds that silence takes, well below ten seconds.
const PERIOD: Duration = Duration::from_secs(2);
const BUFFER: usize = 65536;

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Targets {
    /// Our gateways of pods, one of each family, where questions come from.
    pub(crate) from: Vec<IpAddr>,
    /// The gateways of others.
    pub(crate) to: Vec<IpAddr>,
    /// The size of a pod's largest packet.
    pub(crate) mtu: Option<u32>,
}

/// The prober; ends when it is dropped.
pub(crate) struct Prober {
    targets: watch::Sender<Targets>,
    results: watch::Receiver<BTreeMap<IpAddr, PodPath>>,
    _stop: DropGuard,
}

impl Prober {
    /// Starts in the network namespace of this thread.
    pub(crate) fn start() -> Self {
        let (targets, wanted) = watch::channel(Targets::default());
        let (told, results) = watch::channel(BTreeMap::new());
        let stop = CancellationToken::new();
        match Sockets::open(AddressFamily::Inet) {
            Ok(ipv4) => {
                // A machine may be without IPv6; nobody asks for it there.
                let ipv6 = Sockets::open(AddressFamily::Inet6).ok();
                let task = Task { ipv4, ipv6, wanted, told, paths: BTreeMap::new(), round: 0 };
                tokio::spawn(task.run(stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "there is no raw socket: whether pods of other nodes are reached is not known");
            }
        }
        Self { targets, results, _stop: stop.drop_guard() }
    }

    pub(crate) fn set_targets(&self, targets: Targets) {
        self.targets.send_if_modified(|known| {
            let is_news = *known != targets;
            *known = targets;
            is_news
        });
    }

    pub(crate) fn results(&self) -> BTreeMap<IpAddr, PodPath> {
        self.results.borrow().clone()
    }

    /// Changes with the results, from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<BTreeMap<IpAddr, PodPath>> {
        let mut results = self.results.clone();
        results.mark_unchanged();
        results
    }
}

/// Raw sockets; the type for UDP's has the calls that these need too, and knows nothing of ports.
struct Sockets {
    /// Takes packets with their IP header, which says that they may not be cut.
    sends: UdpSocket,
    /// Sees all of ICMP that comes in: answers, and the questions of others.
    hears: tokio::net::UdpSocket,
}

impl Sockets {
    fn open(family: AddressFamily) -> std::io::Result<Self> {
        let open = |protocol| -> std::io::Result<UdpSocket> {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            Ok(UdpSocket::from(socket(family, SockType::Raw, flags, protocol)?))
        };
        let icmp = if family == AddressFamily::Inet6 { SockProtocol::IcmpV6 } else { SockProtocol::Icmp };
        let hears = tokio::net::UdpSocket::from_std(open(icmp)?)?;
        Ok(Self { sends: open(SockProtocol::Raw)?, hears })
    }
}

struct Task {
    ipv4: Sockets,
    ipv6: Option<Sockets>,
    wanted: watch::Receiver<Targets>,
    told: watch::Sender<BTreeMap<IpAddr, PodPath>>,
    paths: BTreeMap<IpAddr, PathWatch>,
    round: u16,
}

impl Task {
    async fn run(mut self, stop: CancellationToken) {
        let (mut buffer, mut buffer_v6) = (vec![0; BUFFER], vec![0; if self.ipv6.is_some() { BUFFER } else { 0 }]);
        let mut rounds = tokio::time::interval(PERIOD);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = rounds.tick() => self.ask_all(),
                heard = self.ipv4.hears.recv(&mut buffer) => match heard {
                    Ok(length) => self.take(&buffer[..length]),
                    Err(error) => {
                        tracing::warn!(%error, "the raw socket is broken: other nodes are not asked any more");
                        return;
                    }
                },
                heard = hear(self.ipv6.as_ref(), &mut buffer_v6) => match heard {
                    Ok((length, from)) => self.take_v6(&buffer_v6[..length], from),
                    Err(error) => {
                        tracing::warn!(%error, "the raw socket is broken: other nodes are not asked any more over IPv6");
                        self.ipv6 = None;
                    }
                },
            }
        }
    }

    /// Judges the round before, and asks again.
    fn ask_all(&mut self) {
        let targets = self.wanted.borrow().clone();
        self.paths.retain(|address, _| targets.to.contains(address));
        self.round = self.round.wrapping_add(1);
        for address in &targets.to {
            let path = self.paths.entry(*address).or_default();
            path.end_round();
            let Some(from) = targets.from.iter().find(|from| from.is_ipv6() == address.is_ipv6()) else { continue };
            let sockets = if address.is_ipv6() { self.ipv6.as_ref() } else { Some(&self.ipv4) };
            let Some(sockets) = sockets else { continue };
            for size in path.start_round(targets.mtu) {
                ask(&sockets.sends, *from, *address, self.round, size);
            }
        }
        let results: BTreeMap<IpAddr, PodPath> =
            self.paths.iter().map(|(address, path)| (*address, path.verdict())).collect();
        self.told.send_if_modified(|told| {
            let is_news = *told != results;
            *told = results;
            is_news
        });
    }

    fn take(&mut self, packet: &[u8]) {
        let Some(Echo { from, kind, size, .. }) = read_echo(packet) else { return };
        self.note(from.into(), kind, size);
    }

    fn take_v6(&mut self, message: &[u8], from: IpAddr) {
        let Some((kind, size)) = packet6::read_echo(message) else { return };
        self.note(from, kind, size);
    }

    fn note(&mut self, from: IpAddr, kind: Kind, size: u32) {
        let Some(path) = self.paths.get_mut(&from) else { return };
        match kind {
            Kind::Request => path.heard(),
            Kind::Reply => path.answered(size),
        }
    }
}

/// The next message of IPv6; none ever comes without a socket.
async fn hear(sockets: Option<&Sockets>, buffer: &mut [u8]) -> std::io::Result<(usize, IpAddr)> {
    match sockets {
        Some(sockets) => sockets.hears.recv_from(buffer).await.map(|(length, from)| (length, from.ip())),
        None => std::future::pending().await,
    }
}

fn ask(socket: &UdpSocket, from: IpAddr, to: IpAddr, round: u16, size: u32) {
    let packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => write_request(from, to, round, size),
        (IpAddr::V6(from), IpAddr::V6(to)) => packet6::write_request(from, to, round, size),
        _ => return,
    };
    // No route, a full queue, a device with a smaller MTU: it does not arrive, which is what is asked.
    if let Err(error) = socket.send_to(&packet, (to, 0)) {
        tracing::trace!(%to, size, %error, "an echo request was not sent");
    }
}
