//! What the node agent says to storage drivers: the Identity and Node services of CSI v1, and the registration by which a
//! driver makes itself known.
//!
//! It is not a driver and decides nothing about volumes: every call is one request over a unix socket. Messages are written
//! by hand, with the field numbers of the published protocols. Clients of other services over unix sockets use its
//! [`Channel`]. Invariant: every call has a deadline.

mod channel;
mod driver;
mod error;
mod plugin_handler;
mod registration;

pub mod v1;

pub use channel::Channel;
pub use driver::{AccessMode, AccessType, Driver, NodeCapabilities, Publish, Stage};
pub use error::CsiError;
pub use plugin_handler::PluginHandler;
pub use registration::Registration;
