//! What pods and pod templates share: defaults and validation of `PodSpec`, and the quality-of-service class.
//!
//! Not what holds only for pods (status, updates): that is `core::pod`. The invariant: everything takes the spec and its
//! path, so that the same code serves pods, templates and templates of templates.

mod containers;
mod defaults;
mod env;
mod label_keys;
mod probes;
mod qos;
mod resources;
mod scheduling;
mod security;
mod validation;
mod volumes;
mod warnings;

pub(crate) use defaults::{default_pod, default_pod_spec, mirror_service_account};
pub(crate) use label_keys::merge_label_keys;
pub(crate) use qos::qos_class;
pub(crate) use resources::quantity_errors;
pub(crate) use scheduling::{label_selector_errors, node_selector_errors, tolerations as toleration_errors};
pub(crate) use validation::{Scope, validate_pod_spec, validate_template};
pub(crate) use warnings::pod_warnings;
