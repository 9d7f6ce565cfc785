//! A node's way to the API: a listener on loopback that passes connections on, as they are, to one of the cluster's API
//! servers that is well.
//!
//! Not a proxy of requests: TLS ends at the API server, and who calls checks its certificate. Invariants: what is known of
//! the API servers outlives the process; a server that does not answer keeps no connection; servers, connections and waits
//! are bounded. With one API server there is nothing to choose, and it is not asked how it is.

mod authority;
mod carry;
mod config;
mod connect;
mod follow;
mod memory;
mod pool;
mod probe;
mod run;
mod track;

pub use config::{Config, DEFAULT_LISTEN, TLS_SERVER_NAME};
pub use memory::{KnownServer, MEMORY_FILE, Memory};
pub use run::{Balancer, BalancerError};
pub use track::Health;
