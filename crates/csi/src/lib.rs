//! What the node agent says to storage drivers: the Identity and Node services of CSI v1, and the registration by which a
//! driver makes itself known.
//!
//! It is not a driver and decides nothing about volumes: every call is one request over a unix socket. Messages are written
//! by hand, with the field numbers of the published protocols. Invariant: every call has a deadline.

mod channel;
mod driver;
mod error;
mod registration;

pub mod v1;

pub use driver::{AccessMode, AccessType, Driver, NodeCapabilities, Publish, Stage};
pub use error::CsiError;
pub use registration::Registration;
