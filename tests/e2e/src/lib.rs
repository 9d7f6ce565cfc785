//! The harness of the end-to-end suites: hosts in network namespaces, real kubectl, real containers.
//!
//! Invariants: a test ends only processes that it started; whatever it made is gone when its host is dropped; a test that
//! can't run says so by name, and fails instead where `KEDGE_NO_SKIP` is set (in CI).

mod api;
mod binary;
mod calm;
mod cluster;
mod etcd;
mod host;
mod kubectl;
mod machine;
mod node_agent;
mod other_build;
mod pods;
mod registry;
mod server;
mod switch;
mod wait;

pub use api::ApiProxy;
pub use binary::{busybox_image, dynamic_kedge_binary, kedge_binary};
pub use calm::{OF_THE_MACHINE, names_no_failure, names_only};
pub use cluster::{Cluster, ClusterOptions};
pub use etcd::Etcd;
pub use host::{Host, HostOptions, free_port};
pub use kubectl::{Kubectl, Output, output_of};
pub use machine::Machine;
pub use node_agent::{Container, NodeAgent, addresses_below};
pub use other_build::other_build;
pub use pods::{BUSYBOX, Node, condition, container, manifest, script_spec};
pub use registry::{REGISTRY_USER, Registry};
pub use server::{Answer, Server, answer, grpc_serving};
pub use switch::Switch;
pub use wait::eventually;
