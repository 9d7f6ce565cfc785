//! The embedded durable store: the state in memory, every change in a storage engine (redb) with group commit.
//!
//! One writer thread takes all that waits and writes it with one sync; an answer leaves only after it. What is on disk is
//! the log of changes, each replaced one until it leaves the history, so that watches resume across a restart. See
//! `docs/decisions/0002-storage-engine.md` for the engine.

mod engine;
mod error;
#[cfg(test)]
mod faults;
mod gaps;
mod lock;
mod mending;
mod queue;
mod recovery;
mod row;
mod shared;
mod store;
mod writer;

pub use error::EmbeddedError;
pub use store::{EmbeddedStore, Options};
