//! Volumes out of directories of a node: the provisioner behind the storage class `local-path`, one for each node.
//!
//! It makes a directory for a claim that was given to its node, describes it as a `local` PersistentVolume, lets it grow
//! in name, and removes both when the claim is gone and the policy says so. Not a binder (the volume controller binds)
//! and not a quota: a volume's capacity is what was asked for, and nothing holds a pod to it. Invariants: nothing outside
//! the root directory is ever deleted; no directory is deleted while its volume is not released; what a crash leaves
//! half made is finished or removed by the next run.

mod class;
mod config;
mod directory;
mod plan;
mod provision;
mod reclaim;
mod resize;
mod run;
mod volume;

pub use class::{CLASS, PROVISIONER};
pub use config::{Config, Deps, Error};
pub use run::run;
