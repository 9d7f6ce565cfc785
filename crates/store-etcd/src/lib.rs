//! The store in an etcd: one that several processes may share, and that lives on while each of them restarts.
//!
//! Etcd orders and keeps; this process has a copy of everything in memory, which one watch feeds. Reads are answered from the
//! copy once it is proven to be as new as etcd. See `docs/decisions/0012-store-in-etcd.md`.

mod compaction;
mod copy;
mod failure;
mod feed;
mod fresh;
mod layout;
mod leases;
mod options;
mod rpc;
mod servers;
mod store;
mod transaction;

pub use options::{EtcdError, Options, Tls};
pub use store::EtcdStore;
