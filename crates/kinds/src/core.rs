//! The kinds of the core group.

mod config_map;
pub(crate) mod endpoints;
pub(crate) mod event;
mod namespace;
mod node;
mod pod;
mod pod_row;
mod pod_update;
mod secret;
pub(crate) mod service;
mod service_account;
mod service_cluster_ips;

use crate::generic::Generic;
use crate::strategy::Strategy;

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "configmaps" => &config_map::ConfigMap,
        "endpoints" => &endpoints::Endpoints,
        "events" => &event::Event,
        "namespaces" => &namespace::Namespace,
        "nodes" => &node::Node,
        "pods" => &pod::Pod,
        "secrets" => &secret::Secret,
        "serviceaccounts" => &service_account::ServiceAccount,
        "services" => &service::Service,
        _ => &Generic::PLAIN,
    }
}
