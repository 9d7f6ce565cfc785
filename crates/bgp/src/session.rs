//! The session with one peer, connection after connection, until nobody gives it commands any more.
//!
//! Invariant: whatever ends a connection is said and tried again; routes are announced as soon as the session is
//! established, and what the peer announces is taken as it comes.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::notification::{BgpNotificationMessage, CeaseError, HoldTimerExpiredError};
use netgauze_bgp_pkt::update::BgpUpdateMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingIgnoredErrors;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::connection::{Connection, End, Introduction, connect};
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
    told: BTreeSet<Ipv4Net>,
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
        let mut attempt = pin!(connect(config.address, self.address(), patience));
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
        let hold = match self.introduce(&mut connection, is_theirs).await {
            Ok(hold) => hold,
            Err(next) => return next,
        };
        tracing::info!(peer = %self.peer.address, "the BGP session is established");
        self.enter(SessionState::Established, None);
        self.told.clear();
        let end = self.exchange(&mut connection, hold).await;
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
    async fn introduce(&mut self, connection: &mut Connection, is_theirs: bool) -> Result<Option<Duration>, Next> {
        let config = &self.shared.config;
        let own = Introduction {
            asn: config.asn,
            router_id: config.address,
            hold_time: config.hold_time,
            peer_asn: self.peer.asn,
        };
        let theirs_stays = self.peer.address > config.address;
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
    async fn exchange(&mut self, connection: &mut Connection, hold: Option<Duration>) -> Option<End> {
        if let Err(end) = self.announce(connection).await {
            return Some(end);
        }
        if let Err(end) = connection.send(end_of_routes()).await {
            return Some(end);
        }
        let never = Duration::from_secs(u64::from(u32::MAX));
        let (silence, beat) = (hold.unwrap_or(never), hold.map_or(never, |hold| hold / 3));
        let mut over = Instant::now() + silence;
        let mut next_beat = Instant::now() + beat;
        loop {
            let done = tokio::select! {
                command = self.commands.recv() => match command {
                    None => return None,
                    Some(Command::Announce) => self.announce(connection).await,
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
                        self.take(connection, message, &ignored).await
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
    ) -> Result<(), End> {
        match message {
            BgpMessage::KeepAlive => Ok(()),
            BgpMessage::Update(update) => {
                self.learn(&update, ignored);
                Ok(())
            }
            BgpMessage::RouteRefresh(_) => {
                self.told.clear();
                self.announce(connection).await
            }
            other => Err(connection.out_of_turn(&other).await),
        }
    }

    /// Takes an update. One with broken attributes takes back what it names, and the session goes on (RFC 7606).
    fn learn(&self, update: &BgpUpdateMessage, ignored: &BgpParsingIgnoredErrors) {
        let (update, config, peer) = (read(update), &self.shared.config, self.peer.address);
        // What went through us already, or leads to us, would go in a circle.
        let is_external = self.peer.asn != config.asn;
        let is_circle = (is_external && update.path.contains(&config.asn)) || update.next_hop == Some(config.address);
        let is_broken = !ignored.path_attr_errors().is_empty();
        if is_broken {
            tracing::warn!(%peer, "an update with broken attributes counts as a withdrawal");
        }
        self.shared.routes(|rib| {
            rib.withdraw(peer, update.withdrawn);
            match update.next_hop.filter(|next_hop| is_usable(*next_hop)) {
                Some(next_hop) if !is_circle && !is_broken => rib.announce(peer, update.announced, next_hop),
                _ => rib.withdraw(peer, update.announced),
            }
            if update.is_end {
                rib.end_of_routes(peer);
            }
        });
    }

    /// Tells the peer what it does not know yet.
    async fn announce(&mut self, connection: &mut Connection) -> Result<(), End> {
        let config = &self.shared.config;
        let is_internal = self.peer.asn == config.asn;
        let announcer = Announcer { asn: config.asn, next_hop: config.address, is_internal };
        let wanted = self.shared.announced();
        let gone: Vec<Ipv4Net> = self.told.difference(&wanted).copied().collect();
        let new: Vec<Ipv4Net> = wanted.difference(&self.told).copied().collect();
        for message in withdrawals(&gone).into_iter().chain(announcements(announcer, &new)) {
            connection.send(message).await?;
        }
        self.told = wanted;
        Ok(())
    }
}

fn is_usable(next_hop: Ipv4Addr) -> bool {
    !next_hop.is_unspecified() && !next_hop.is_loopback() && !next_hop.is_multicast() && !next_hop.is_broadcast()
}
