//! Cluster DNS: names of Services and pods per version 1.1.0 of the Kubernetes DNS specification, answered from
//! informers, and everything else forwarded to the machine's resolvers.
//!
//! Losing the API server changes nothing in the answers. What to answer is pure ([`Zone::resolve`]); this process holds
//! sockets and a bounded cache around that. A Corefile in the ConfigMap `kube-system/coredns` may say more: stub domains with
//! their own resolvers, names that stand for others, fixed addresses. The wire format is hickory-proto's.

mod cache;
mod catalog;
mod config;
mod corefile;
mod follow;
mod forward;
mod hosts;
mod introspection;
mod lameduck;
mod loops;
mod message;
mod metrics;
mod publish;
mod resolv_conf;
mod resolver;
mod rewrite;
mod routing;
mod run;
mod server;
mod transport;
mod zone;

pub use catalog::Catalog;
pub use config::{Config, DEFAULT_PORT, Deps, Error, INTROSPECTION_PORT, Publish};
pub use publish::{ensure_service, plan_endpoint_slices, plan_service};
pub use resolv_conf::{Upstreams, parse_resolv_conf};
pub use run::run;
pub use zone::{Outcome, Zone};
