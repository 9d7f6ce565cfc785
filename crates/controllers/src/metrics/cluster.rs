//! What is counted of upkeep: the bundle for pods, the garbage collector.

use std::time::Duration;

use kedge_metrics::{Counters, Histograms, Text};

/// 1 ms, and each twice the one before.
const BOUNDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];

/// The counters.
pub(crate) struct ClusterMetrics {
    published: Counters,
    publishing_times: Histograms,
    discovery_errors: Counters,
}

impl Default for ClusterMetrics {
    fn default() -> Self {
        let help = "Number of namespace syncs happened in root ca cert publisher.";
        Self {
            published: Counters::new("root_ca_cert_publisher_sync_total", &["code"], help),
            publishing_times: Histograms::new("root_ca_cert_publisher_sync_duration_seconds", &["code"], BOUNDS, help),
            discovery_errors: Counters::new(
                "garbagecollector_controller_resources_sync_error_total",
                &[],
                "Number of garbage collector resources sync errors",
            ),
        }
    }
}

impl ClusterMetrics {
    /// A namespace has the bundle, or what the API answered.
    pub(crate) fn published(&self, code: u16, took: Duration) {
        let code = code.to_string();
        self.published.count(&[&code]);
        self.publishing_times.observe(&[&code], took);
    }

    /// The kinds of the API could not be found out.
    pub(crate) fn discovery_failed(&self) {
        self.discovery_errors.count(&[]);
    }

    pub(super) fn write(&self, text: &mut Text) {
        self.published.write(text);
        self.publishing_times.write(text);
        self.discovery_errors.write(text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn upkeep_is_counted() {
        let metrics = ClusterMetrics::default();
        metrics.published(200, Duration::from_millis(3));
        metrics.discovery_failed();
        let text = shown(|text| metrics.write(text));
        for line in [
            "root_ca_cert_publisher_sync_total{code=\"200\"} 1",
            "root_ca_cert_publisher_sync_duration_seconds_bucket{code=\"200\",le=\"0.004\"} 1",
            "garbagecollector_controller_resources_sync_error_total 1",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
