//! The scheduler: which node a pod runs on.
//!
//! Deciding is pure: plugins look at a snapshot of the nodes and a pod, and know no clock, no API and no runtime. The
//! edges (watching, binding, extenders, events, preemption's deletions) are in `scheduler`, `extender` and `execute`.

mod alike;
mod bind_claims;
mod bind_volumes;
mod cache;
mod configuration;
mod cycle;
mod device_facts;
mod event;
mod evictions;
mod execute;
mod extender;
mod framework;
mod likeness;
mod memory;
mod metrics;
mod node_info;
mod nominated;
mod plugins;
mod pod_figures;
mod pod_info;
mod preemption;
mod profile;
mod queue;
mod resources;
mod run;
mod scheduler;
mod search;
mod selectors;
mod shape;
mod storage_facts;
mod tallies;

pub use configuration::{ClientConnection, ConfigurationError, KubeSchedulerConfiguration, LeaderElection};
pub use extender::ExtenderError;
pub use metrics::SchedulerMetrics;
pub use run::{Config, Deps, Error, run};
