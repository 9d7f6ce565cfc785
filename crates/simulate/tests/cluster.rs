//! Simulated nodes under a whole control plane in this process: API server, controllers and scheduler.

#![allow(clippy::unwrap_used)]

mod cluster {
    mod extended_resources;
    mod extenders;
    mod harness;
    mod nodes;
    mod pods;
    mod preemption;
}
