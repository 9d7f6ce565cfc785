//! The store port: what Kedge asks of a store, and the conformance suite that every backend passes.
//!
//! The contract is etcd's in Kedge's words: one revision counter for the whole store, conditional commits of several
//! keys, ordered watches from any revision that is not compacted. A store knows keys and bytes, and nothing of kinds.
//! [`State`] is the part that backends share which keep their records in memory: a pure state machine without I/O.

mod conformance;
mod expiry;
mod history;
mod latency;
mod list;
mod memory;
mod pending;
mod port;
mod state;
mod topics;

pub use conformance::{Backend, run_conformance};
pub use history::HistoryLimits;
pub use latency::Latency;
pub use memory::MemoryStore;
pub use port::{
    Change, ChangeKind, CommitError, Committed, Condition, Durability, Expect, Key, ListPage, ListRequest, Record,
    Revision, Store, StoreError, StoreStats, Template, Transaction, Watch, WatchError, Write,
};
pub use state::{Entry, FIRST_REVISION, Prepared, Published, Refusal, Replayed, State};
pub use topics::{Cursor, Wakeups};
