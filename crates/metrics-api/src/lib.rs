//! The group `metrics.k8s.io` (`kubectl top`, autoscaling), as the metrics server answers it, without a metrics server.
//!
//! A scraper reads `/metrics/resource` of every node through the API; a service answers from the last two scrapes. It
//! stores nothing and knows no kubelet but by that path. Invariant: what is answered was measured on two occasions, or
//! since the start of a container; nothing is made up for what was not.

mod answer;
mod exposition;
mod points;
mod query;
mod scrape;
mod table;
mod usage;

pub use answer::{GROUP, MetricsService, RESOURCES, ServedResource, VERSION, roles};
pub use scrape::{Config, Deps, run};
