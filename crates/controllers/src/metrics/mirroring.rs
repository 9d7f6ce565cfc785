//! What is counted of mirrored Endpoints.

use std::time::Duration;

use kedge_metrics::{Counters, Histograms, Text};

use crate::endpoint_slice_mirroring::{Changed, Skipped};

/// 2, and each twice the one before.
const ENDPOINTS: &[f64] =
    &[2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0];
/// 1 ms, and each twice the one before.
const SYNCS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];

/// The counters.
pub(crate) struct MirroringMetrics {
    added: Histograms,
    updated: Histograms,
    removed: Histograms,
    skipped: Histograms,
    syncs: Histograms,
    changes: Counters,
}

impl Default for MirroringMetrics {
    fn default() -> Self {
        Self {
            added: Histograms::new(
                "endpoint_slice_mirroring_controller_endpoints_added_per_sync",
                &[],
                ENDPOINTS,
                "Number of endpoints added on each Endpoints sync",
            ),
            updated: Histograms::new(
                "endpoint_slice_mirroring_controller_endpoints_updated_per_sync",
                &[],
                ENDPOINTS,
                "Number of endpoints updated on each Endpoints sync",
            ),
            removed: Histograms::new(
                "endpoint_slice_mirroring_controller_endpoints_removed_per_sync",
                &[],
                ENDPOINTS,
                "Number of endpoints removed on each Endpoints sync",
            ),
            skipped: Histograms::new(
                "endpoint_slice_mirroring_controller_addresses_skipped_per_sync",
                &[],
                ENDPOINTS,
                "Number of addresses skipped on each Endpoints sync due to being invalid or exceeding MaxEndpointsPerSubset",
            ),
            syncs: Histograms::new(
                "endpoint_slice_mirroring_controller_endpoints_sync_duration",
                &[],
                SYNCS,
                "Duration of syncEndpoints() in seconds",
            ),
            changes: Counters::new(
                "endpoint_slice_mirroring_controller_changes",
                &["operation"],
                "Number of EndpointSlice changes",
            ),
        }
    }
}

impl MirroringMetrics {
    /// It was found out how to mirror some Endpoints.
    pub(crate) fn planned(&self, changed: Changed, skipped: Skipped) {
        let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        self.added.observe_value(&[], number(changed.added));
        self.updated.observe_value(&[], number(changed.updated));
        self.removed.observe_value(&[], number(changed.removed));
        self.skipped.observe_value(&[], number(skipped.invalid + skipped.too_many));
    }

    /// A slice was written: `create`, `update` or `delete`.
    pub(crate) fn changed(&self, operation: &'static str) {
        self.changes.count(&[operation]);
    }

    /// A pass over some Endpoints ended.
    pub(crate) fn ended(&self, took: Duration) {
        self.syncs.observe(&[], took);
    }

    pub(super) fn write(&self, text: &mut Text) {
        for histograms in [&self.added, &self.updated, &self.removed, &self.skipped, &self.syncs] {
            histograms.write(text);
        }
        self.changes.write(text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn mirroring_is_counted() {
        let metrics = MirroringMetrics::default();
        metrics.planned(Changed { added: 3, updated: 1, removed: 0 }, Skipped { invalid: 1, too_many: 4 });
        metrics.changed("create");
        metrics.ended(Duration::from_millis(3));
        let text = shown(|text| metrics.write(text));
        let name = "endpoint_slice_mirroring_controller";
        for line in [
            format!("{name}_endpoints_added_per_sync_bucket{{le=\"2\"}} 0"),
            format!("{name}_endpoints_added_per_sync_bucket{{le=\"4\"}} 1"),
            format!("{name}_endpoints_updated_per_sync_sum 1"),
            format!("{name}_endpoints_removed_per_sync_bucket{{le=\"2\"}} 1"),
            format!("{name}_addresses_skipped_per_sync_sum 5"),
            format!("{name}_endpoints_sync_duration_bucket{{le=\"0.002\"}} 0"),
            format!("{name}_endpoints_sync_duration_bucket{{le=\"0.004\"}} 1"),
            format!("{name}_changes{{operation=\"create\"}} 1"),
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
