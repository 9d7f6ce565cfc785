//! Simulated nodes: they renew their leases, report capacity and conditions, and play the kubelet for the pods that are
//! bound to them, without a container anywhere.
//!
//! It makes nodes and pods of its own where it is told to, and takes over every node with the annotation
//! [`SIMULATED`], whoever made it; annotations on nodes and pods steer what happens to them (`annotations.rs`). Not a
//! model of time, load or networks: nothing can be reached, and a pod does what its annotations say. Invariants: a node
//! without the annotation is never touched, nor are its pods; what happens to a pod follows from the pod, its node and
//! the time alone, so that a restart goes on where it was.

mod addresses;
mod annotations;
mod config;
mod containers;
mod fill;
mod leases;
mod node;
mod pod;
mod requests;
mod run;
mod status_patch;

pub use annotations::{EXIT_CODE, READY, RESTARTS, RUN_TIME, SILENT, SIMULATED, START_DELAY, STOP_TIME, is_simulated};
pub use config::{Config, Deps, ParseConfigError};
pub use fill::{FILLER_NAMESPACE, NODE_PREFIX};
pub use run::run;
