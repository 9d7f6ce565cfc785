//! The API's behaviour, in process over a store in memory.
//!
//! One file for each group of verbs; every case says what is sent and what must come back.

#![allow(clippy::unwrap_used)]

#[path = "api/access.rs"]
mod access;
#[path = "api/crud.rs"]
mod crud;
#[path = "api/deletion.rs"]
mod deletion;
#[path = "api/discovery.rs"]
mod discovery;
#[path = "api/harness.rs"]
mod harness;
#[path = "api/lifecycles.rs"]
mod lifecycles;
#[path = "api/lists.rs"]
mod lists;
#[path = "api/local.rs"]
mod local;
#[path = "api/patches.rs"]
mod patches;
#[path = "api/pods.rs"]
mod pods;
#[path = "api/watches.rs"]
mod watches;
