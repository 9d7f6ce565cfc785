//! What is known of a peer, for people and for the doctor.

use std::net::IpAddr;
use std::time::Instant;

/// How far a session with a peer is (RFC 4271, section 8.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SessionState {
    /// Waits before it tries again.
    #[default]
    Idle,
    /// Tries to connect.
    Connect,
    /// Could not connect and waits to be connected to.
    Active,
    /// Has introduced itself.
    OpenSent,
    /// Both have introduced themselves.
    OpenConfirm,
    /// Exchanges routes.
    Established,
}

impl SessionState {
    /// The standard's word.
    pub fn as_str(self) -> &'static str {
        match self {
            SessionState::Idle => "Idle",
            SessionState::Connect => "Connect",
            SessionState::Active => "Active",
            SessionState::OpenSent => "OpenSent",
            SessionState::OpenConfirm => "OpenConfirm",
            SessionState::Established => "Established",
        }
    }
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerReport {
    /// Its address.
    pub address: IpAddr,
    /// Its autonomous system.
    pub asn: u32,
    /// How far the session is.
    pub state: SessionState,
    /// Since when.
    pub since: Instant,
    /// Why the last session ended or did not come about.
    pub last_error: Option<String>,
    /// How many routes it announces.
    pub routes: usize,
}
