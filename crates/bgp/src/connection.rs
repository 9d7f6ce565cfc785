//! One connection with a peer: the introduction (RFC 4271, 6.2 and 8.2.2), and messages in both directions.
//!
//! Invariant: whatever ends a connection is said to the peer in a notification, where it still listens, and to the caller
//! in words.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::capabilities::{BgpCapability, FourOctetAsCapability, MultiProtocolExtensionsCapability};
use netgauze_bgp_pkt::codec::BgpCodec;
use netgauze_bgp_pkt::notification::{
    BgpNotificationMessage, CeaseError, FiniteStateMachineError, MessageHeaderError, OpenMessageError,
};
use netgauze_bgp_pkt::open::{BgpOpenMessage, BgpOpenMessageParameter};
use netgauze_bgp_pkt::wire::deserializer::BgpParsingIgnoredErrors;
use netgauze_iana::address_family::AddressType;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::Framed;

/// What stands in the two-byte field where the number of the system has four (RFC 6793).
const AS_TRANS: u16 = 23456;
/// How long an introduction may take, and a notification.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who introduces itself to whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Introduction {
    pub(crate) asn: u32,
    pub(crate) router_id: Ipv4Addr,
    /// In seconds.
    pub(crate) hold_time: u16,
    /// The system that the peer must be of.
    pub(crate) peer_asn: u32,
    /// What we exchange.
    pub(crate) families: Families,
}

/// The families whose routes are exchanged (RFC 4760).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Families {
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
}

impl Families {
    pub(crate) fn has(self, ipv6: bool) -> bool {
        if ipv6 { self.ipv6 } else { self.ipv4 }
    }

    /// Those that a peer speaks: IPv4 where it says nothing.
    fn of(open: &BgpOpenMessage) -> Self {
        let said: Vec<AddressType> = open
            .capabilities()
            .into_iter()
            .filter_map(|capability| match capability {
                BgpCapability::MultiProtocolExtensions(family) => Some(family.address_type()),
                _ => None,
            })
            .collect();
        Self {
            ipv4: said.is_empty() || said.contains(&AddressType::Ipv4Unicast),
            ipv6: said.contains(&AddressType::Ipv6Unicast),
        }
    }
}

/// What both sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// After how much silence the session is over; never, where one of both wants it so.
    pub(crate) hold: Option<Duration>,
    pub(crate) families: Families,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) why: String,
    /// The peer was shut down, or no longer wants to be one: its routes are void.
    pub(crate) is_goodbye: bool,
}

impl End {
    pub(crate) fn of(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_goodbye: false }
    }
}

pub(crate) struct Connection {
    framed: Framed<TcpStream, BgpCodec>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        // A failure costs a delay of small messages, no more.
        let _ = stream.set_nodelay(true);
        Self { framed: Framed::new(stream, BgpCodec::default()) }
    }

    /// Says who we are and hears who the peer is; returns what both agreed on.
    pub(crate) async fn introduce(&mut self, own: Introduction) -> Result<Agreed, End> {
        self.send(BgpMessage::Open(open_message(own))).await?;
        let theirs = match timeout(PATIENCE, self.receive()).await {
            Err(_) => return Err(End::of("the peer did not introduce itself in time")),
            Ok(message) => match message?.0 {
                BgpMessage::Open(open) => open,
                other => return Err(self.out_of_turn(&other).await),
            },
        };
        if let Err((error, why)) = check(own, &theirs) {
            self.refuse(BgpNotificationMessage::OpenMessageError(error)).await;
            return Err(End::of(why));
        }
        self.send(BgpMessage::KeepAlive).await?;
        match timeout(PATIENCE, self.receive()).await {
            Err(_) => return Err(End::of("the peer did not confirm in time")),
            Ok(message) => match message?.0 {
                BgpMessage::KeepAlive => {}
                other => return Err(self.out_of_turn(&other).await),
            },
        }
        let seconds = own.hold_time.min(theirs.hold_time());
        let theirs = Families::of(&theirs);
        let families = Families { ipv4: own.families.ipv4 && theirs.ipv4, ipv6: own.families.ipv6 && theirs.ipv6 };
        Ok(Agreed { hold: (seconds > 0).then(|| Duration::from_secs(seconds.into())), families })
    }

    /// The next message but notifications, which are the end.
    pub(crate) async fn receive(&mut self) -> Result<(BgpMessage, BgpParsingIgnoredErrors), End> {
        match self.framed.next().await {
            None => Err(End::of("the peer closed the connection")),
            Some(Ok((BgpMessage::Notification(notification), _))) => Err(end_of(&notification)),
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => {
                let header = MessageHeaderError::Unspecific { value: Box::default() };
                self.refuse(BgpNotificationMessage::MessageHeaderError(header)).await;
                Err(End::of(format!("the peer sent what can't be read: {error}")))
            }
        }
    }

    pub(crate) async fn send(&mut self, message: BgpMessage) -> Result<(), End> {
        match timeout(PATIENCE, self.framed.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(End::of(format!("the connection broke: {error:?}"))),
            Err(_) => Err(End::of("the peer takes no more messages")),
        }
    }

    /// Ends the connection with a notification.
    pub(crate) async fn refuse(&mut self, notification: BgpNotificationMessage) {
        // Whoever does not take it notices the end of the connection.
        let _ = self.send(BgpMessage::Notification(notification)).await;
        let _ = timeout(PATIENCE, self.framed.close()).await;
    }

    /// The end that a message brings that has no place here.
    pub(crate) async fn out_of_turn(&mut self, message: &BgpMessage) -> End {
        let error = FiniteStateMachineError::Unspecific { value: Box::default() };
        self.refuse(BgpNotificationMessage::FiniteStateMachineError(error)).await;
        End::of(format!("the peer sent a message out of turn: {:?}", message.get_type()))
    }
}

fn open_message(own: Introduction) -> BgpOpenMessage {
    let families = [(own.families.ipv4, AddressType::Ipv4Unicast), (own.families.ipv6, AddressType::Ipv6Unicast)];
    let spoken = families.into_iter().filter(|(is_spoken, _)| *is_spoken);
    let mut capabilities: Vec<BgpCapability> = spoken
        .map(|(_, family)| BgpCapability::MultiProtocolExtensions(MultiProtocolExtensionsCapability::new(family)))
        .collect();
    capabilities.extend([BgpCapability::RouteRefresh, BgpCapability::FourOctetAs(FourOctetAsCapability::new(own.asn))]);
    let parameters = vec![BgpOpenMessageParameter::Capabilities(capabilities.into_boxed_slice())];
    let short = u16::try_from(own.asn).unwrap_or(AS_TRANS);
    BgpOpenMessage::new(short, own.hold_time, own.router_id, parameters)
}

/// Whether the peer is who it should be.
fn check(own: Introduction, theirs: &BgpOpenMessage) -> Result<(), (OpenMessageError, String)> {
    if theirs.version() != 4 {
        let error = OpenMessageError::UnsupportedVersionNumber { value: Box::new([0, 4]) };
        return Err((error, format!("the peer speaks version {} of BGP", theirs.version())));
    }
    let asn = theirs.my_asn4();
    if asn != own.peer_asn {
        let error = OpenMessageError::BadPeerAs { value: Box::default() };
        return Err((error, format!("the peer is of AS {asn}, and not of AS {} as configured", own.peer_asn)));
    }
    if theirs.bgp_id().is_unspecified() || (theirs.bgp_id() == own.router_id && asn == own.asn) {
        let error = OpenMessageError::BadBgpIdentifier { value: Box::default() };
        return Err((error, format!("the peer's router id {} is ours, or none", theirs.bgp_id())));
    }
    if matches!(theirs.hold_time(), 1 | 2) {
        let error = OpenMessageError::UnacceptableHoldTime { value: Box::default() };
        return Err((error, format!("the peer wants a hold time of {} s", theirs.hold_time())));
    }
    Ok(())
}

fn end_of(notification: &BgpNotificationMessage) -> End {
    let is_goodbye = matches!(
        notification,
        BgpNotificationMessage::CeaseError(
            CeaseError::AdministrativeShutdown { .. } | CeaseError::PeerDeConfigured { .. }
        )
    );
    let why = match notification {
        BgpNotificationMessage::CeaseError(CeaseError::AdministrativeShutdown { .. }) => {
            "the peer was shut down".into()
        }
        BgpNotificationMessage::CeaseError(CeaseError::PeerDeConfigured { .. }) => "the peer no longer knows us".into(),
        BgpNotificationMessage::OpenMessageError(OpenMessageError::BadPeerAs { .. }) => {
            "the peer refused our AS number (BadPeerAs)".into()
        }
        BgpNotificationMessage::HoldTimerExpiredError(_) => "the peer has not heard from us in time".into(),
        other => format!("the peer refused: {other:?}"),
    };
    End { why, is_goodbye }
}

/// Connects from our own address.
pub(crate) async fn connect(from: IpAddr, to: std::net::SocketAddr, patience: Duration) -> Result<TcpStream, String> {
    let connected: Result<io::Result<TcpStream>, _> = timeout(patience, async {
        let socket = match from.is_ipv6() {
            false => tokio::net::TcpSocket::new_v4()?,
            true => tokio::net::TcpSocket::new_v6()?,
        };
        socket.bind((from, 0).into())?;
        socket.connect(to).await
    })
    .await;
    match connected {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("cannot connect to {to}: {error}")),
        Err(_) => Err(format!("no answer from {to}: is TCP port {} blocked?", to.port())),
    }
}
