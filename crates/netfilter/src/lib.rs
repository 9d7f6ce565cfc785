//! nftables rules as data, applied by difference: a table is a fixed skeleton plus fragments with owners (a Service, a
//! node address list); a changed fragment becomes one small transaction. Also the two other switches of the kernel that
//! packet rules need: sysctls with a memory of what they were, and removal of stale connection-tracking entries.
//!
//! Not a place for decisions about Services or pods: those are the components' business.

mod conntrack;
mod foreign;
mod generation;
mod keeper;
mod listing;
mod model;
mod names;
mod nft;
mod protocol;
mod script;
mod snapshot;
mod state;
mod sysctl;

pub use conntrack::{Conntrack, ConntrackError, StaleFlow, UdpFlow};
pub use foreign::{DroppingChain, forward_drops};
pub use generation::{RulesetGeneration, ruleset_generation};
pub use keeper::{Applied, TableKeeper, Verified};
pub use model::{Chain, Element, ElementKey, Family, Fragment, Hook, SetSpec, Skeleton};
pub use names::hashed_name;
pub use nft::{Nft, NftError};
pub use protocol::Protocol;
pub use snapshot::{ParseSnapshotError, Snapshot};
pub use state::TableState;
pub use sysctl::{SysctlError, Sysctls};
