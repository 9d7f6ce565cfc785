//! Simulated nodes under a whole control plane in this process: API server, controllers and scheduler.

#[path = "cluster/harness.rs"]
mod harness;
#[path = "cluster/nodes.rs"]
mod nodes;
#[path = "cluster/pods.rs"]
mod pods;
#[path = "cluster/preemption.rs"]
mod preemption;
