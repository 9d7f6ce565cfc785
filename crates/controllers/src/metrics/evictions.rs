//! What is counted of nodes that fell silent and pods that were driven out or collected.

use std::time::Duration;

use jiff::SignedDuration;
use kedge_metrics::{Counters, Histograms, Text};

const DELAYS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 120.0, 180.0, 240.0];
/// 1 ms, and each four times the one before.
const NODES: &[f64] = &[0.001, 0.004, 0.016, 0.064, 0.256, 1.024, 4.096, 16.384];

/// The counters.
pub(crate) struct EvictionMetrics {
    nodes: Counters,
    node_times: Histograms,
    by_taints: (Counters, Histograms),
    by_device_taints: (Counters, Histograms),
    collected: Counters,
    not_collected: Counters,
}

impl Default for EvictionMetrics {
    fn default() -> Self {
        let of_pod = &["namespace", "reason"];
        Self {
            nodes: Counters::new(
                "node_collector_evictions_total",
                &["zone"],
                "Number of Node evictions that happened since current instance of NodeController started.",
            ),
            node_times: Histograms::new(
                "node_collector_update_node_health_duration_seconds",
                &[],
                NODES,
                "Duration in seconds for NodeController to update the health of a single node.",
            ),
            by_taints: (
                Counters::new(
                    "taint_eviction_controller_pod_deletions_total",
                    &[],
                    "Total number of Pods deleted by TaintEvictionController since its start.",
                ),
                Histograms::new(
                    "taint_eviction_controller_pod_deletion_duration_seconds",
                    &[],
                    DELAYS,
                    "Latency, in seconds, between the time when a taint effect has been activated for the Pod and its deletion via TaintEvictionController.",
                ),
            ),
            by_device_taints: (
                Counters::new(
                    "device_taint_eviction_controller_pod_deletions_total",
                    &[],
                    "Total number of Pods deleted by DeviceTaintEvictionController since its start.",
                ),
                Histograms::new(
                    "device_taint_eviction_controller_pod_deletion_duration_seconds",
                    &[],
                    DELAYS,
                    "Latency, in seconds, between the time when a device taint effect has been activated and a Pod's deletion via DeviceTaintEvictionController.",
                ),
            ),
            collected: Counters::new(
                "pod_gc_collector_force_delete_pods_total",
                of_pod,
                "Number of pods that are being forcefully deleted since the Pod GC Controller started.",
            ),
            not_collected: Counters::new(
                "pod_gc_collector_force_delete_pod_errors_total",
                of_pod,
                "Number of errors encountered when forcefully deleting the pods since the Pod GC Controller started.",
            ),
        }
    }
}

impl EvictionMetrics {
    /// A node of a zone got the taint that drives its pods out.
    pub(crate) fn node(&self, zone: &str) {
        self.nodes.count(&[zone]);
    }

    /// There is a zone, which may have had no evictions.
    pub(crate) fn zone(&self, zone: &str) {
        self.nodes.add(&[zone], 0);
    }

    /// A node was looked at.
    pub(crate) fn node_seen(&self, took: Duration) {
        self.node_times.observe(&[], took);
    }

    /// A pod was deleted for a taint of its node, so long after that was due.
    pub(crate) fn pod(&self, late: SignedDuration) {
        self.by_taints.0.count(&[]);
        self.by_taints.1.observe_value(&[], late.as_secs_f64().max(0.0));
    }

    /// A pod was deleted for a taint of a device, so long after that was due.
    pub(crate) fn pod_of_device(&self, late: SignedDuration) {
        self.by_device_taints.0.count(&[]);
        self.by_device_taints.1.observe_value(&[], late.as_secs_f64().max(0.0));
    }

    /// A pod that nobody else deletes is, or could not be.
    pub(crate) fn collected(&self, namespace: &str, reason: &str, is_good: bool) {
        self.collected.count(&[namespace, reason]);
        if !is_good {
            self.not_collected.count(&[namespace, reason]);
        }
    }

    pub(super) fn write(&self, text: &mut Text) {
        self.nodes.write(text);
        self.node_times.write(text);
        for (count, delays) in [&self.by_taints, &self.by_device_taints] {
            count.write(text);
            delays.write(text);
        }
        self.collected.write(text);
        self.not_collected.write(text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn who_was_driven_out_is_counted() {
        let metrics = EvictionMetrics::default();
        metrics.zone("eu:a");
        metrics.node("eu:b");
        metrics.pod(SignedDuration::from_millis(20));
        metrics.pod_of_device(SignedDuration::from_secs(-1));
        metrics.collected("d", "orphaned", false);
        let text = shown(|text| metrics.write(text));
        for line in [
            "node_collector_evictions_total{zone=\"eu:a\"} 0",
            "node_collector_evictions_total{zone=\"eu:b\"} 1",
            "taint_eviction_controller_pod_deletions_total 1",
            "taint_eviction_controller_pod_deletion_duration_seconds_bucket{le=\"0.025\"} 1",
            "taint_eviction_controller_pod_deletion_duration_seconds_bucket{le=\"0.005\"} 0",
            "device_taint_eviction_controller_pod_deletion_duration_seconds_bucket{le=\"0.005\"} 1",
            "pod_gc_collector_force_delete_pods_total{namespace=\"d\",reason=\"orphaned\"} 1",
            "pod_gc_collector_force_delete_pod_errors_total{namespace=\"d\",reason=\"orphaned\"} 1",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
