//! Eviction: pods are ended when the node runs short of memory, disk or process ids, and when they exceed their own
//! limits of local storage.
//!
//! What to do is decided in `state`, `rank`, `limits` and `message`, all pure; `measure` reads the machine, `manager` acts.
//! Invariant: at most one pod goes for a shortage before the node is looked at again, and never a critical one.

mod limits;
mod manager;
mod measure;
mod message;
mod pressures;
mod rank;
mod state;
mod threshold;
mod usage;

pub(crate) use manager::run;
pub(crate) use pressures::Pressures;
pub(crate) use threshold::Pressure;
pub use threshold::{Amount, Signal, Threshold};
