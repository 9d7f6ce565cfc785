//! The node agent: pods from the API and from a directory, run through the container runtime interface, with their
//! volumes, probes, logs and status; and the Node object itself.
//!
//! Deciding (`plan`, `status`, `restart`, ...) is pure; effects are in the workers. It starts no process of its own and
//! knows no store, proxy or network: it needs a client of the API, a runtime and a clock. Invariants: restarting it touches
//! no container, and losing the API server stops nothing that runs.

mod admit;
mod agent;
mod allocation;
mod cgroups;
mod checkpoint;
mod config;
mod configuration;
mod container_config;
mod container_gc;
mod device_work;
mod env;
mod env_checkpoint;
mod env_file;
mod events;
mod eviction;
mod expand;
mod field_ref;
mod hooks;
mod image_gc;
mod image_volumes;
mod images;
mod kill;
mod labels;
mod log_links;
mod logs;
mod machine;
mod manager;
mod manifest;
mod measured;
mod metrics;
mod mirror;
mod network_files;
mod node;
mod oom;
mod outside;
mod plan;
mod pod_gate;
mod probes;
mod reference;
mod relist;
mod resize;
mod resources;
mod restart;
mod restart_backoff;
mod run;
mod runtime_state;
mod sandbox;
mod security;
mod server;
mod spec;
mod start;
mod static_pods;
mod status;
mod status_writer;
mod stop_signal;
mod termination;
mod termination_message;
mod user_namespaces;
mod volume_use;
mod worker;

pub use config::{CgroupDriver, Config, Eviction, ImageGc, Reserved};
pub use configuration::{ConfigurationError, KubeletConfiguration, LaunchSettings, Starter};
pub use eviction::{Amount, Signal, Threshold};
pub use node::NetworkReady;
pub use pod_gate::PodGate;
pub use run::{Deps, Error, run};
