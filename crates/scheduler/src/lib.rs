//! The scheduler: which node a pod runs on.
//!
//! Deciding is pure: plugins look at a snapshot of the nodes and a pod, and know no clock, no API and no runtime. The
//! edges (watching, binding, events, preemption's deletions) are in `run` and `execute`.

mod bind_claims;
mod bind_volumes;
mod cache;
mod cycle;
mod device_facts;
mod execute;
mod framework;
mod metrics;
mod node_info;
mod plugins;
mod preemption;
mod queue;
mod resources;
mod run;
mod selectors;
mod storage_facts;

pub use metrics::SchedulerMetrics;
pub use run::{Config, Deps, Error, run};
