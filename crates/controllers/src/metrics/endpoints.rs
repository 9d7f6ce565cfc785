//! What is counted of EndpointSlices.

use kedge_metrics::{Counters, Histograms, Text};

/// 2, and each twice the one before.
const ENDPOINTS: &[f64] =
    &[2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0];
/// Prometheus' own.
const SLICES: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What one pass over a Service changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Synced<'a> {
    pub(crate) added: usize,
    pub(crate) removed: usize,
    /// Slices that were created, updated and deleted.
    pub(crate) slices: [usize; 3],
    pub(crate) uses_topology: bool,
    pub(crate) traffic_distribution: &'a str,
}

/// The counters.
pub(crate) struct EndpointMetrics {
    added: Histograms,
    removed: Histograms,
    changes: Counters,
    changed: Histograms,
    syncs: Counters,
}

impl Default for EndpointMetrics {
    fn default() -> Self {
        Self {
            added: Histograms::new(
                "endpoint_slice_controller_endpoints_added_per_sync",
                &[],
                ENDPOINTS,
                "Number of endpoints added on each Service sync",
            ),
            removed: Histograms::new(
                "endpoint_slice_controller_endpoints_removed_per_sync",
                &[],
                ENDPOINTS,
                "Number of endpoints removed on each Service sync",
            ),
            changes: Counters::new(
                "endpoint_slice_controller_changes",
                &["operation"],
                "Number of EndpointSlice changes",
            ),
            changed: Histograms::new(
                "endpoint_slice_controller_endpointslices_changed_per_sync",
                &["topology", "traffic_distribution"],
                SLICES,
                "Number of EndpointSlices changed on each Service sync",
            ),
            syncs: Counters::new("endpoint_slice_controller_syncs", &["result"], "Number of EndpointSlice syncs"),
        }
    }
}

impl EndpointMetrics {
    /// A pass did what it planned.
    pub(crate) fn synced(&self, synced: Synced<'_>) {
        let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        self.added.observe_value(&[], number(synced.added));
        self.removed.observe_value(&[], number(synced.removed));
        for (operation, count) in ["create", "update", "delete"].into_iter().zip(synced.slices) {
            if count > 0 {
                self.changes.add(&[operation], count as u64);
            }
        }
        let topology = if synced.uses_topology { "Auto" } else { "Disabled" };
        let changed = number(synced.slices.iter().sum());
        self.changed.observe_value(&[topology, synced.traffic_distribution], changed);
    }

    /// A pass ended: `success`, `stale` or `error`.
    pub(crate) fn ended(&self, result: &'static str) {
        self.syncs.count(&[result]);
    }

    pub(super) fn write(&self, text: &mut Text) {
        self.added.write(text);
        self.removed.write(text);
        self.changes.write(text);
        self.changed.write(text);
        self.syncs.write(text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn changes_are_counted_by_operation() {
        let metrics = EndpointMetrics::default();
        let synced = Synced {
            added: 3,
            removed: 0,
            slices: [1, 0, 2],
            uses_topology: false,
            traffic_distribution: "PreferClose",
        };
        metrics.synced(synced);
        metrics.ended("success");
        let text = shown(|text| metrics.write(text));
        let name = "endpoint_slice_controller";
        for line in [
            format!("{name}_endpoints_added_per_sync_bucket{{le=\"2\"}} 0"),
            format!("{name}_endpoints_added_per_sync_bucket{{le=\"4\"}} 1"),
            format!("{name}_changes{{operation=\"create\"}} 1"),
            format!("{name}_changes{{operation=\"delete\"}} 2"),
            format!(
                "{name}_endpointslices_changed_per_sync_sum{{topology=\"Disabled\",traffic_distribution=\"PreferClose\"}} 3"
            ),
            format!("{name}_syncs{{result=\"success\"}} 1"),
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
