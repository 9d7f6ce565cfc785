//! The benchmarks, one per file. Each has `run(arguments, report)` and adds its figures as it gets them.

pub(crate) mod api;
pub(crate) mod cluster;
pub(crate) mod controllers;
pub(crate) mod doctor;
mod fleet;
pub(crate) mod memory;
mod neighbours;
pub(crate) mod network;
pub(crate) mod node;
mod placement;
pub(crate) mod scheduler;
pub(crate) mod startup;
