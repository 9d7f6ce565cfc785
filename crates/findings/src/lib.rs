//! The doctor inside a cluster: it looks again and again, and keeps what it finds as objects (`kubectl get findings`), as
//! events of the objects concerned, and as metrics.
//!
//! It looks as `kedge doctor` does and decides nothing by itself. It polls, and does not keep a copy of the cluster: a copy
//! would cost memory in a cluster at rest, and a look costs a few hundredths of a second in a small one. How often it looks
//! follows from what a look costs, and a watch of the cluster's warnings wakes it in between. Invariant: it uses less than
//! a hundredth of a processor, however large the cluster is, and one of several instances works at a time.

mod changes;
mod events;
mod keeper;
mod look;
mod metrics;
mod pace;
mod record;
mod run;

pub use run::{Access, RunError, WatchOptions, run_alone, spawn};
