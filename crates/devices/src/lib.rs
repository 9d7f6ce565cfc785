//! The devices of one node: claims that drivers of dynamic resource allocation prepare, and device plug-ins.
//!
//! It decides nothing about which node a pod runs on. Messages are written by hand, with the field numbers of the
//! kubelet's published protocols. Invariants: a device of a plug-in is given to one container at a time; what was given
//! survives a restart of the node agent; every call of a driver or a plug-in has a deadline.

mod cdi;
mod checkpoint;
mod claims;
mod devices;
mod edits;
mod grpc;
mod plugins;
mod pod_resources;

pub mod v1;

pub use devices::{Deps, Devices};
pub use edits::Edits;
pub use pod_resources::Pods;
