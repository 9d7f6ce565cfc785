//! The service proxy: turns Services and EndpointSlices into packet rules of the kernel, in upstream's nftables layout.
//!
//! Packets never pass through this process: rules go on working when it, or the API server, is gone. Deciding is pure
//! ([`plan_skeleton`], [`plan_service`]); [`run`] follows the API and applies differences.

mod balance;
mod config;
mod endpoints;
mod health;
mod healthz;
mod http;
mod names;
mod plan;
mod run;
mod service;
mod skeleton;
mod stale;
mod tracking;
mod worker;

pub use config::{Config, Deps, Error, NodePortAddresses};
pub use endpoints::{Endpoint, Reachable, categorize, collect_endpoints};
pub use plan::{HealthCheck, NodeView, ServicePlan, plan_node, plan_service};
pub use run::{run, teardown};
pub use service::{Affinity, ServicePort, service_ports};
pub use skeleton::plan_skeleton;
pub use stale::{UdpPort, plan_left_over_flows, plan_stale_flows};
