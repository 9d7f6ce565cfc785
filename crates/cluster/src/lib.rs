//! Clusters of several nodes on one machine, for trying things out and for tests: each node is a set of namespaces (network,
//! mounts, processes, host name, cgroups) with its own address, containerd, kubelet and files.
//!
//! Not here: what runs on a node (`kedge up` and `kedge node`, started as programs). Invariants: the machine's own network
//! is not touched: nodes hang on a bridge in a namespace of its own that has no way out; what a cluster is made of stands
//! in its record before it is made, so that deleting works after any crash.

mod addresses;
mod boot;
mod cgroups;
mod command;
mod create;
mod credentials;
mod delete;
mod error;
mod etcd;
mod exec;
mod gateway;
mod images;
mod init;
mod layout;
mod list;
mod mounts;
mod name;
mod node;
mod plan;
mod record;
mod switch;
mod wait;

pub use boot::boot;
pub use create::{CreateOptions, Created, create};
pub use delete::delete;
pub use error::Error;
pub use exec::exec;
pub use gateway::gateway;
pub use images::load_images;
pub use init::init;
pub use layout::{ClusterLayout, NodeLayout};
pub use list::{ClusterView, NodeState, NodeView, list};
pub use name::{ClusterName, NodeName};
pub use node::{Stop, cut, heal, start, stop};
pub use record::{ClusterRecord, NodeRecord, Role};
