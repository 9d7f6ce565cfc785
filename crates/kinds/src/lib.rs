//! Descriptors of the kinds that Kedge serves, and what is particular to each kind: defaults, preparation, validation,
//! table rows, selectable fields.
//!
//! Pure: no clock, no I/O, no store. A built-in kind and a custom resource are the same [`Kind`]; what differs lies in the
//! [`Strategy`] behind it. The invariant: every hook works in place on decoded JSON, and none of them looks at anything but
//! its arguments.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod deprecation;
mod discovery;
mod events;
#[cfg(test)]
mod every_kind;
mod flowcontrol;
mod generated;
mod generic;
mod kind;
mod metadata;
mod networking;
mod node;
mod path;
mod pod_spec;
mod policy;
mod rbac;
mod registry;
mod resource;
mod scheduling;
mod served;
mod storage;
mod storage_version;
mod strategy;
mod table;
mod value;
mod workload;

use kedge_meta::formats;

pub use deprecation::{Deprecation, deprecation};
pub use generic::Generic;
pub use kind::{Backing, Kind, StrategyRef, Subresource};
pub use metadata::embedded_metadata_errors;
pub use registry::{builtin, builtin_by_resource, builtins};
pub use strategy::{Column, NameRule, Propagation, ScalePaths, Strategy, UnsupportedField, WriteContext};
pub use table::{age, human_duration, scale_selector};
