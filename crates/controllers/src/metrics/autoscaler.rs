//! What is counted of autoscalers.

use std::time::Duration;

use kedge_metrics::{Counters, Histograms, Text};

/// 1 ms, and each twice the one before.
const BOUNDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];

/// What was wrong, as upstream tells it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The autoscaler says something that cannot be followed.
    Spec,
    /// Somebody else did not answer.
    Internal,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Spec => "spec",
            Self::Internal => "internal",
        }
    }
}

fn action(from: i32, to: i32) -> &'static str {
    match to.cmp(&from) {
        std::cmp::Ordering::Greater => "scale_up",
        std::cmp::Ordering::Less => "scale_down",
        std::cmp::Ordering::Equal => "none",
    }
}

/// The counters.
pub(crate) struct AutoscalerMetrics {
    reconciliations: (Counters, Histograms),
    computations: (Counters, Histograms),
}

impl Default for AutoscalerMetrics {
    fn default() -> Self {
        let (of_all, of_metric) = (&["action", "error"], &["action", "error", "metric_type"]);
        Self {
            reconciliations: (
                Counters::new(
                    "horizontal_pod_autoscaler_controller_reconciliations_total",
                    of_all,
                    "Number of reconciliations of HPA controller, by what it did and what was wrong.",
                ),
                Histograms::new(
                    "horizontal_pod_autoscaler_controller_reconciliation_duration_seconds",
                    of_all,
                    BOUNDS,
                    "The time(seconds) that the HPA controller takes to reconcile once.",
                ),
            ),
            computations: (
                Counters::new(
                    "horizontal_pod_autoscaler_controller_metric_computation_total",
                    of_metric,
                    "Number of metric computations, by what they ask for and what was wrong.",
                ),
                Histograms::new(
                    "horizontal_pod_autoscaler_controller_metric_computation_duration_seconds",
                    of_metric,
                    BOUNDS,
                    "The time(seconds) that the HPA controller takes to calculate one metric.",
                ),
            ),
        }
    }
}

impl AutoscalerMetrics {
    /// An autoscaler was looked at, and its target changed from a number of replicas to another.
    pub(crate) fn reconciled(&self, (from, to): (i32, i32), fault: Fault, took: Duration) {
        let labels = [action(from, to), fault.name()];
        self.reconciliations.0.count(&labels);
        self.reconciliations.1.observe(&labels, took);
    }

    /// One metric of an autoscaler proposed another number of replicas than there are.
    pub(crate) fn computed(&self, metric: &str, (from, to): (i32, i32), fault: Fault, took: Duration) {
        let labels = [action(from, to), fault.name(), metric];
        self.computations.0.count(&labels);
        self.computations.1.observe(&labels, took);
    }

    pub(super) fn write(&self, text: &mut Text) {
        for (count, times) in [&self.reconciliations, &self.computations] {
            count.write(text);
            times.write(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn reconciliations_are_counted_by_what_they_did() {
        let metrics = AutoscalerMetrics::default();
        metrics.reconciled((2, 3), Fault::None, Duration::from_millis(3));
        metrics.reconciled((3, 2), Fault::Internal, Duration::from_millis(3));
        metrics.computed("Resource", (2, 2), Fault::Spec, Duration::from_millis(1));
        let text = shown(|text| metrics.write(text));
        let name = "horizontal_pod_autoscaler_controller";
        for line in [
            format!("{name}_reconciliations_total{{action=\"scale_up\",error=\"none\"}} 1"),
            format!("{name}_reconciliations_total{{action=\"scale_down\",error=\"internal\"}} 1"),
            format!(
                "{name}_reconciliation_duration_seconds_bucket{{action=\"scale_up\",error=\"none\",le=\"0.004\"}} 1"
            ),
            format!("{name}_metric_computation_total{{action=\"none\",error=\"spec\",metric_type=\"Resource\"}} 1"),
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
