//! The store over real etcd servers. Where there is none, each test says by name that it is skipped.

#![allow(clippy::unwrap_used, reason = "tests")]

mod conformance;
mod faults;
mod harness;
mod members;
mod sharing;
