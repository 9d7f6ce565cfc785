//! One way to the API for every component: kube clients in process or over HTTPS, shared informers, work queues, leader
//! election and events.
//!
//! Not a place for decisions: what to do with an object is the components' business.

mod backoff;
mod component_metrics;
mod connect;
mod events;
mod failure;
mod failure_log;
mod informer;
mod leader;
mod observe;
mod queue;
mod reload;
mod request_metrics;
mod selector;
mod service_account;
mod unowned;
mod watched;

pub use backoff::Backoff;
pub use component_metrics::{ComponentMetrics, LeaseMetrics, QueueMetrics};
pub use connect::{
    ConnectError, anonymous_client_from_kubeconfig, client_from_kubeconfig, client_from_service, client_in_cluster,
    server_of_kubeconfig,
};
pub use events::{EventType, Recorder, object_reference};
pub use failure::{FailureCause, classify, is_silence};
pub use failure_log::FailureLog;
pub use informer::{Change, Informer, InformerOptions, Informers, Subscription, object_key};
pub use leader::{Fence, LeaderConfig, LeaderElector, LeaderError, WIDEST_LEASE};
pub use observe::{Request, observed};
pub use queue::Queue;
pub use request_metrics::RequestMetrics;
pub use selector::label_selector;
pub use service_account::service_account_client;
pub use watched::Watched;

/// The API client of the kube crate.
pub use kube::Client;
