//! The API server: the Kubernetes API over the store port.
//!
//! One path for every kind: a request is routed by its path to a [`kedge_kinds::Kind`] and a verb; what is particular to a
//! kind lies in its strategy, in an admission plugin, or in a file under `rest/`. Reads hand out stored bytes. Knows no
//! store backend, prints nothing, ends no process.

mod access;
mod address_repair;
mod admission;
mod aggregation;
mod audit;
mod authenticate;
mod body;
mod bootstrap;
mod call;
mod cidr;
mod compress;
mod config;
mod convert;
mod core;
mod create;
mod custom;
mod delete;
mod documents;
mod encode;
mod flow;
mod follow;
mod front_proxy;
mod handle;
mod label_index;
mod local;
mod metrics;
mod negotiate;
mod object;
mod own_request;
mod patch;
mod port_repair;
mod present;
mod protobuf;
mod query;
mod read;
mod registry;
mod reply;
mod rest;
mod scan;
mod select;
mod server;
mod service_endpoints;
mod target;
mod update;
mod watch;
mod write;

pub use admission::{PluginConfigurations, UnknownPlugin, WebhookCredentials, check_plugins};
pub use body::{Body, BoxError};
pub use cidr::{Cidr, ParseCidrError};
pub use config::{Config, Deps};
pub use front_proxy::FrontProxy;
pub use local::{LocalApi, LocalHandler, LocalResource};
pub use server::{ApiServer, Error, LocalService};
