//! A BGP speaker (RFC 4271, and RFC 4760 for unicast of IPv6): announces this node's routes to its peers, learns theirs, and keeps a record of
//! which peers are established and why the others are not.
//!
//! Not here: who the peers are, and putting routes into the kernel; that is the pod network's. It carries nobody else's
//! routes: a full mesh, or route reflectors, are its peers.

mod connection;
mod message;
mod report;
mod rib;
mod session;
mod speaker;

pub use report::{PeerReport, SessionState};
pub use rib::{LearnedRoute, Rib};
pub use speaker::{Config, Error, PeerConfig, Speaker};
