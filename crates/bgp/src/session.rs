//! The session with one peer, connection after connection, until nobody gives it commands any more.
//!
//! Invariant: whatever ends a connection is said and tried again; routes are announced as soon as the session is
//! established, and what the peer announces is taken as it comes.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::notification::{BgpNotificationMessage, CeaseError, HoldTimerExpiredError};
use netgauze_bgp_pkt::update::BgpUpdateMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingIgnoredErrors;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::connection::{Agreed, Connection, End, Families, Introduction, connect};
use crate::message::{Announcer, announcements, end_of_routes, read, withdrawals};
use crate::report::SessionState;
use crate::speaker::{PeerConfig, Shared};

/// What a session is told.
pub(crate) enum Command {
    /// What is to be announced has changed.
    Announce,
    /// The peer has connected.
    Accept(TcpStream),
}

/// Why a step of the session is over.
enum Next {
    /// Rest, then connect.
    Retry,
    /// Go on with this connection, which the peer made.
    Take(TcpStream),
    /// Nobody can give commands any more.
    Leave,
}

pub(crate) struct Session {
    peer: PeerConfig,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    /// What the peer was told.
    told: BTreeSet<IpNet>,
}

impl Session {
    pub(crate) fn new(peer: PeerConfig, shared: Arc<Shared>, commands: mpsc::Receiver<Command>) -> Self {
        Self { peer, shared, commands, told: BTreeSet::new() }
    }

    /// Runs until nobody can give commands any more, which ends in a goodbye; or until `stop`, which does not.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.sessions() => {}
        }
    }

    async fn sessions(&mut self) {
        let mut next = self.connect().await;
        loop {
            next = match next {
                Next::Take(stream) => self.session(stream).await,
                Next::Retry => match self.rest().await {
                    Next::Retry => self.connect().await,
                    other => other,
                },
                Next::Leave => return,
            };
        }
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((self.peer.address, self.peer.port.unwrap_or(self.shared.config.port)))
    }

    fn enter(&self, state: SessionState, error: Option<String>) {
        self.shared.report(self.peer.address, state, error);
    }

    /// Connects; the peer may be faster.
    async fn connect(&mut self) -> Next {
        self.enter(SessionState::Connect, None);
        let config = &self.shared.config;
        let patience = Duration::from_secs(u64::from(config.retry_after) + 1);
        let Some(own) = config.address(self.peer.address.is_ipv6()) else {
            self.enter(SessionState::Active, Some("this machine has no address of the peer's family".to_owned()));
            return Next::Retry;
        };
        let mut attempt = pin!(connect(own, self.address(), patience));
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    None => return Next::Leave,
                    Some(Command::Accept(stream)) => return Next::Take(stream),
                    Some(Command::Announce) => {}
                },
                connected = &mut attempt => return match connected {
                    Ok(stream) => Next::Take(stream),
                    Err(error) => {
                        self.enter(SessionState::Active, Some(error));
                        Next::Retry
                    }
                },
            }
        }
    }

    /// Waits for the time of the next attempt, or for the peer to connect.
    async fn rest(&mut self) -> Next {
        let mut rest = pin!(sleep(Duration::from_secs(self.shared.config.retry_after.into())));
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    None => return Next::Leave,
                    Some(Command::Accept(stream)) => return Next::Take(stream),
                    Some(Command::Announce) => {}
                },
                () = &mut rest => return Next::Retry,
            }
        }
    }

    /// One connection from the introduction to its end.
    async fn session(&mut self, stream: TcpStream) -> Next {
        self.enter(SessionState::OpenSent, None);
        let is_theirs = stream.local_addr().is_ok_and(|address| address.port() == self.shared.config.port);
        let mut connection = Connection::new(stream);
        let agreed = match self.introduce(&mut connection, is_theirs).await {
            Ok(agreed) => agreed,
            Err(next) => return next,
        };
        tracing::info!(peer = %self.peer.address, "the BGP session is established");
        self.enter(SessionState::Established, None);
        self.told.clear();
        let end = self.exchange(&mut connection, agreed).await;
        let Some(end) = end else {
            self.shared.routes(|rib| rib.forget(self.peer.address));
            let goodbye = CeaseError::AdministrativeShutdown { value: Box::default() };
            connection.refuse(BgpNotificationMessage::CeaseError(goodbye)).await;
            return Next::Leave;
        };
        tracing::warn!(peer = %self.peer.address, why = end.why, "the BGP session ended");
        let peer = self.peer.address;
        let now = std::time::Instant::now();
        self.shared.routes(|rib| if end.is_goodbye { rib.forget(peer) } else { rib.broke(peer, now) });
        self.enter(SessionState::Idle, Some(end.why));
        Next::Retry
    }

    /// Introduces us. Where both have connected at the same time, the connection of the higher address stays.
    async fn introduce(&mut self, connection: &mut Connection, is_theirs: bool) -> Result<Agreed, Next> {
        let config = &self.shared.config;
        let own = Introduction {
            asn: config.asn,
            router_id: config.router_id(),
            hold_time: config.hold_time,
            peer_asn: self.peer.asn,
            families: config.families(),
        };
        let theirs_stays = Some(self.peer.address) > config.address(self.peer.address.is_ipv6());
        let mut introduction = pin!(connection.introduce(own));
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    None => return Err(Next::Leave),
                    // A second connection of the peer's means that it has given up the first.
                    Some(Command::Accept(stream)) if theirs_stays || is_theirs => return Err(Next::Take(stream)),
                    Some(Command::Accept(_) | Command::Announce) => {}
                },
                introduced = &mut introduction => return introduced.map_err(|end| {
                    self.enter(SessionState::Idle, Some(end.why));
                    Next::Retry
                }),
            }
        }
    }

    /// Exchanges routes until the connection ends; `None` where nobody wants the session any more.
    async fn exchange(&mut self, connection: &mut Connection, agreed: Agreed) -> Option<End> {
        let Agreed { hold, families } = agreed;
        if let Err(end) = self.announce(connection, families).await {
            return Some(end);
        }
        for ipv6 in [false, true].into_iter().filter(|ipv6| families.has(*ipv6)) {
            if let Err(end) = connection.send(end_of_routes(ipv6)).await {
                return Some(end);
            }
        }
        let never = Duration::from_secs(u64::from(u32::MAX));
        let (silence, beat) = (hold.unwrap_or(never), hold.map_or(never, |hold| hold / 3));
        let mut over = Instant::now() + silence;
        let mut next_beat = Instant::now() + beat;
        loop {
            let done = tokio::select! {
                command = self.commands.recv() => match command {
                    None => return None,
                    Some(Command::Announce) => self.announce(connection, families).await,
                    // An established session stays (RFC 4271, 6.8); a peer that lost it is noticed by its silence.
                    Some(Command::Accept(_)) => Ok(()),
                },
                () = sleep_until(next_beat) => {
                    next_beat = Instant::now() + beat;
                    connection.send(BgpMessage::KeepAlive).await
                }
                () = sleep_until(over) => {
                    let error = HoldTimerExpiredError::Unspecific { sub_code: 0, value: Box::default() };
                    connection.refuse(BgpNotificationMessage::HoldTimerExpiredError(error)).await;
                    Err(End::of(format!("nothing was heard from the peer for {} s", silence.as_secs())))
                }
                received = connection.receive() => match received {
                    Err(end) => Err(end),
                    Ok((message, ignored)) => {
                        over = Instant::now() + silence;
                        self.take(connection, message, &ignored, families).await
                    }
                },
            };
            if let Err(end) = done {
                return Some(end);
            }
        }
    }

    async fn take(
        &mut self,
        connection: &mut Connection,
        message: BgpMessage,
        ignored: &BgpParsingIgnoredErrors,
        families: Families,
    ) -> Result<(), End> {
        match message {
            BgpMessage::KeepAlive => Ok(()),
            BgpMessage::Update(update) => {
                self.learn(&update, ignored);
                Ok(())
            }
            BgpMessage::RouteRefresh(_) => {
                self.told.clear();
                self.announce(connection, families).await
            }
            other => Err(connection.out_of_turn(&other).await),
        }
    }

    /// Takes an update. One with broken attributes takes back what it names, and the session goes on (RFC 7606).
    fn learn(&self, update: &BgpUpdateMessage, ignored: &BgpParsingIgnoredErrors) {
        let (update, config, peer) = (read(update), &self.shared.config, self.peer.address);
        // What went through us already, or leads to us, would go in a circle.
        let is_external = self.peer.asn != config.asn;
        let own = config.next_hops();
        let is_ours = |ipv6: bool| {
            let next_hop = update.next_hops.of_family(ipv6);
            next_hop.is_some() && next_hop == own.of_family(ipv6)
        };
        let is_circle = (is_external && update.path.contains(&config.asn)) || is_ours(false) || is_ours(true);
        let is_broken = !ignored.path_attr_errors().is_empty();
        if is_broken {
            tracing::warn!(%peer, "an update with broken attributes counts as a withdrawal");
        }
        self.shared.routes(|rib| {
            rib.withdraw(peer, update.withdrawn);
            for ipv6 in [false, true] {
                let announced = update.announced.iter().filter(|prefix| prefix.addr().is_ipv6() == ipv6).copied();
                match update.next_hops.of_family(ipv6).filter(|next_hop| is_usable(*next_hop)) {
                    Some(next_hop) if !is_circle && !is_broken => rib.announce(peer, announced, next_hop),
                    _ => rib.withdraw(peer, announced),
                }
            }
            if let Some(ipv6) = update.end_of {
                rib.end_of_routes(peer, ipv6);
            }
        });
    }

    /// Tells the peer what it does not know yet.
    async fn announce(&mut self, connection: &mut Connection, families: Families) -> Result<(), End> {
        let config = &self.shared.config;
        let is_internal = self.peer.asn == config.asn;
        let announcer = Announcer { asn: config.asn, next_hops: config.next_hops(), is_internal };
        let mut wanted = self.shared.announced();
        wanted.retain(|prefix| families.has(prefix.addr().is_ipv6()));
        let gone: Vec<IpNet> = self.told.difference(&wanted).copied().collect();
        let new: Vec<IpNet> = wanted.difference(&self.told).copied().collect();
        for message in withdrawals(&gone).into_iter().chain(announcements(announcer, &new)) {
            connection.send(message).await?;
        }
        self.told = wanted;
        Ok(())
    }
}

fn is_usable(next_hop: IpAddr) -> bool {
    let is_broadcast = matches!(next_hop, IpAddr::V4(address) if address.is_broadcast());
    !next_hop.is_unspecified() && !next_hop.is_loopback() && !next_hop.is_multicast() && !is_broadcast
}
