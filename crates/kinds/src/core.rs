//! The kinds of the core group.

mod component_status;
mod config_map;
pub(crate) mod endpoints;
pub(crate) mod event;
mod limit_range;
mod namespace;
mod node;
mod persistent_volume;
pub(crate) mod persistent_volume_claim;
mod pod;
mod pod_row;
mod pod_template;
mod pod_update;
mod replication_controller;
mod resource_quota;
mod secret;
pub(crate) mod service;
mod service_account;
mod service_cluster_ips;

use crate::generic::Generic;
use crate::strategy::Strategy;

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "componentstatuses" => &component_status::ComponentStatus,
        "configmaps" => &config_map::ConfigMap,
        "endpoints" => &endpoints::Endpoints,
        "events" => &event::Event,
        "limitranges" => &limit_range::LimitRange,
        "namespaces" => &namespace::Namespace,
        "nodes" => &node::Node,
        "persistentvolumeclaims" => &persistent_volume_claim::PersistentVolumeClaim,
        "persistentvolumes" => &persistent_volume::PersistentVolume,
        "pods" => &pod::Pod,
        "podtemplates" => &pod_template::PodTemplate,
        "replicationcontrollers" => &replication_controller::ReplicationController,
        "resourcequotas" => &resource_quota::ResourceQuota,
        "secrets" => &secret::Secret,
        "serviceaccounts" => &service_account::ServiceAccount,
        "services" => &service::Service,
        _ => &Generic::PLAIN,
    }
}
