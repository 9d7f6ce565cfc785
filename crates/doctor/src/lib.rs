//! Gathers evidence, from a cluster's API and from a machine.
//!
//! It only reads. What the evidence means is decided by `kedge-diagnosis`. Invariant: what cannot be looked at is part of
//! the evidence, and ends nothing.

mod cluster;
mod cluster_logs;
mod machine;
mod node;

pub use cluster::{gather_cluster, object_path};
pub use kedge_bundle::OWN_EVENTS;
pub use node::{NodePlaces, gather_node};
