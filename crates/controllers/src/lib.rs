//! The controllers: what kube-controller-manager does, each in a file or folder of its own and all of the same shape: a
//! key in, caches read, a pure plan, its execution.
//!
//! Not a scheduler, not a kubelet. Invariants: no controller acts before its caches are complete, none acts on a cache
//! that does not show its own writes, and none outlives the term for which this instance leads.

mod admission_policy_status;
mod attach_detach;
mod attributes_class_protection;
mod bootstrap_signer;
mod cluster_role_aggregation;
mod config;
mod cron_job;
mod csr;
mod daemon_set;
mod deployment;
mod device_taint_eviction;
mod discovery;
mod disruption;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod ephemeral_volume;
mod error;
mod eviction;
mod expectations;
mod garbage;
mod hash;
#[cfg(test)]
mod histories;
mod history;
mod horizontal_pod_autoscaler;
mod int_or_percent;
mod job;
mod legacy_token_cleaner;
mod load_balancer;
mod metrics;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod owners;
mod pod_control;
mod pod_gc;
mod pods;
mod queue_names;
mod replica_set;
mod resource_claim;
mod resource_quota;
mod root_ca;
mod run;
mod runtime;
mod service_account;
mod service_account_token;
mod service_cidr;
mod stateful_set;
mod taint_eviction;
mod taints;
mod token_cleaner;
mod ttl;
mod ttl_after_finished;
mod upstream;
mod volume_binder;
mod volume_expansion;
mod volume_protection;

pub use config::{CertificateSigner, Config, Deps, RequestedIdentity};
pub use error::Error;
pub use horizontal_pod_autoscaler::AutoscalerConfig;
pub use load_balancer::{AddressPool, ParsePoolError};
pub use metrics::ControllerMetrics;
pub use run::{controller_names, run};
