//! What the controllers count, under upstream's names, labels and bounds.
//!
//! Controllers count as they work; figures of how things are come from their caches when somebody asks. Invariant: a process
//! that does not lead shows no such figures.

mod autoscaler;
mod cluster;
mod endpoints;
mod evictions;
mod jobs;
mod mirroring;
mod resources;
mod workloads;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kedge_client::ComponentMetrics;
use kedge_metrics::Text;
use parking_lot::Mutex;

pub(crate) use autoscaler::{AutoscalerMetrics, Fault};
pub(crate) use cluster::ClusterMetrics;
pub(crate) use endpoints::{EndpointMetrics, Synced};
pub(crate) use evictions::EvictionMetrics;
pub(crate) use jobs::{JobAction, JobMetrics, PodReason};
pub(crate) use mirroring::MirroringMetrics;
pub(crate) use resources::ResourceMetrics;
pub(crate) use workloads::{Waiting, WorkloadMetrics};

/// Writes figures of how things are now.
type Figures = Arc<dyn Fn(&mut Text) + Send + Sync>;

/// Everything that the controllers count. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ControllerMetrics {
    /// Requests, work queues and the lease.
    pub component: ComponentMetrics,
    own: Arc<Own>,
}

#[derive(Default)]
struct Own {
    autoscaler: AutoscalerMetrics,
    cluster: ClusterMetrics,
    endpoints: EndpointMetrics,
    evictions: EvictionMetrics,
    jobs: JobMetrics,
    mirroring: MirroringMetrics,
    resources: ResourceMetrics,
    workloads: WorkloadMetrics,
    figures: Mutex<BTreeMap<&'static str, Figures>>,
}

impl fmt::Debug for Own {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Own").finish_non_exhaustive()
    }
}

impl ControllerMetrics {
    /// All of it.
    pub fn write(&self, text: &mut Text) {
        self.component.write(text);
        self.own.autoscaler.write(text);
        self.own.cluster.write(text);
        self.own.endpoints.write(text);
        self.own.evictions.write(text);
        self.own.jobs.write(text);
        self.own.mirroring.write(text);
        self.own.resources.write(text);
        self.own.workloads.write(text);
        let figures: Vec<Figures> = self.own.figures.lock().values().cloned().collect();
        figures.iter().for_each(|write| write(text));
    }

    pub(crate) fn autoscaler(&self) -> &AutoscalerMetrics {
        &self.own.autoscaler
    }

    pub(crate) fn cluster(&self) -> &ClusterMetrics {
        &self.own.cluster
    }

    pub(crate) fn endpoints(&self) -> &EndpointMetrics {
        &self.own.endpoints
    }

    pub(crate) fn evictions(&self) -> &EvictionMetrics {
        &self.own.evictions
    }

    pub(crate) fn jobs(&self) -> &JobMetrics {
        &self.own.jobs
    }

    pub(crate) fn mirroring(&self) -> &MirroringMetrics {
        &self.own.mirroring
    }

    pub(crate) fn resources(&self) -> &ResourceMetrics {
        &self.own.resources
    }

    pub(crate) fn workloads(&self) -> &WorkloadMetrics {
        &self.own.workloads
    }

    /// A controller knows how things are, until the term ends.
    pub(crate) fn show(&self, controller: &'static str, figures: impl Fn(&mut Text) + Send + Sync + 'static) {
        self.own.figures.lock().insert(controller, Arc::new(figures));
    }

    /// The term ended: nobody knows how things are.
    pub(crate) fn forget_figures(&self) {
        self.own.figures.lock().clear();
    }
}

/// Gauges of one family by the values of their labels.
pub(crate) fn write_gauges<const N: usize>(
    text: &mut Text,
    name: &str,
    help: &str,
    labels: [&str; N],
    values: &BTreeMap<[String; N], f64>,
) {
    text.family(name, "gauge", help);
    for (key, value) in values {
        let pairs: Vec<(&str, &str)> = labels.iter().copied().zip(key.iter().map(String::as_str)).collect();
        text.sample(name, &pairs, *value);
    }
}

/// The text of what was counted, for tests.
#[cfg(test)]
pub(crate) fn shown(write: impl Fn(&mut Text)) -> String {
    let mut text = Text::default();
    write(&mut text);
    text.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_for_a_term() {
        let metrics = ControllerMetrics::default();
        metrics.show("node-lifecycle-controller", |text| {
            let values = BTreeMap::from([(["eu:a".to_owned()], 3.0)]);
            write_gauges(text, "node_collector_zone_size", "Nodes.", ["zone"], &values);
        });
        let line = "node_collector_zone_size{zone=\"eu:a\"} 3\n";
        assert!(shown(|text| metrics.write(text)).contains(line));
        metrics.forget_figures();
        assert!(!shown(|text| metrics.write(text)).contains("node_collector_zone_size"));
    }
}
