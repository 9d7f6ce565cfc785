//! Which devices a ResourceClaim gets: structured parameters, as upstream's scheduler allocates them.
//!
//! Pure: it is given slices, classes, claims, what is taken already and one node, and says what the claims would get on
//! it. It writes nothing and knows no API. Invariant: one device is never given twice, unless it says that it may be
//! shared or the request asks for administrative access; every search ends after a bounded number of steps.

mod allocate;
mod asks;
mod capacity;
mod constraints;
mod counters;
mod pools;
mod results;
mod search;
mod selectors;
mod taken;

pub use allocate::{AllocateError, Inventory, Site};
pub use selectors::{CompileError, Selectors};
pub use taken::{DeviceId, Taken};
