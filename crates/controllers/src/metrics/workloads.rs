//! What controllers around workloads count: Jobs of CronJobs, Jobs whose time is over, claims of ephemeral volumes, and how
//! often a cache did not show yet what its own controller had written.

use jiff::SignedDuration;
use kedge_metrics::{Counters, Histograms, Text};

const DELETIONS: &[f64] = &[0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6, 819.2];
const SKEWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Controllers that wait until the cache shows what they wrote.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Waiting {
    DaemonSets,
    Jobs,
    ReplicaSets,
    StatefulSets,
}

/// The counters.
pub(crate) struct WorkloadMetrics {
    skews: Histograms,
    deletions: Histograms,
    claims: Counters,
    claim_failures: Counters,
    /// In the order of [`Waiting`].
    stale: [Counters; 4],
}

impl Default for WorkloadMetrics {
    fn default() -> Self {
        let stale = |name, help| Counters::new(name, &["group", "resource"], help);
        Self {
            skews: Histograms::new(
                "cronjob_controller_job_creation_skew_duration_seconds",
                &[],
                SKEWS,
                "Time between when a cronjob is scheduled to be run, and when the corresponding job is created",
            ),
            deletions: Histograms::new(
                "ttl_after_finished_controller_job_deletion_duration_seconds",
                &[],
                DELETIONS,
                "The time it took to delete the job since it became eligible for deletion",
            ),
            claims: Counters::new(
                "ephemeral_volume_controller_create_total",
                &[],
                "Number of PersistentVolumeClaim creation requests",
            ),
            claim_failures: Counters::new(
                "ephemeral_volume_controller_create_failures_total",
                &[],
                "Number of PersistentVolumeClaim creation requests that failed",
            ),
            stale: [
                stale(
                    "daemonset_controller_stale_sync_skips_total",
                    "Total number of DaemonSet syncs skipped due to a stale watch cache.",
                ),
                stale(
                    "job_controller_stale_sync_skips_total",
                    "Total number of Job syncs skipped due to a stale watch cache.",
                ),
                stale(
                    "replicaset_controller_stale_sync_skips_total",
                    "Total number of ReplicaSet syncs skipped due to a stale watch cache.",
                ),
                stale(
                    "statefulset_controller_stale_sync_skips_total",
                    "Total number of StatefulSet syncs skipped due to a stale watch cache.",
                ),
            ],
        }
    }
}

impl WorkloadMetrics {
    /// A CronJob's Job was created so long after its time.
    pub(crate) fn cron_started(&self, late: SignedDuration) {
        self.skews.observe_value(&[], late.as_secs_f64());
    }

    /// A finished Job was deleted so long after its time was over.
    pub(crate) fn job_expired(&self, late: SignedDuration) {
        self.deletions.observe_value(&[], late.as_secs_f64().max(0.0));
    }

    /// A claim of an ephemeral volume was asked for.
    pub(crate) fn claim_asked_for(&self, is_good: bool) {
        self.claims.count(&[]);
        if !is_good {
            self.claim_failures.count(&[]);
        }
    }

    /// A controller waits until its cache shows the pods that it made or deleted.
    pub(crate) fn waits_for_pods(&self, who: Waiting) {
        self.stale[who as usize].count(&["", "pods"]);
    }

    pub(super) fn write(&self, text: &mut Text) {
        self.skews.write(text);
        self.deletions.write(text);
        self.claims.write(text);
        self.claim_failures.write(text);
        self.stale.iter().for_each(|counters| counters.write(text));
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn delays_and_claims_are_counted() {
        let metrics = WorkloadMetrics::default();
        metrics.cron_started(SignedDuration::from_secs(3));
        metrics.job_expired(SignedDuration::from_millis(300));
        metrics.claim_asked_for(false);
        metrics.waits_for_pods(Waiting::DaemonSets);
        metrics.waits_for_pods(Waiting::StatefulSets);
        let text = shown(|text| metrics.write(text));
        for line in [
            "cronjob_controller_job_creation_skew_duration_seconds_bucket{le=\"4\"} 1",
            "ttl_after_finished_controller_job_deletion_duration_seconds_bucket{le=\"0.4\"} 1",
            "ephemeral_volume_controller_create_failures_total 1",
            "daemonset_controller_stale_sync_skips_total{group=\"\",resource=\"pods\"} 1",
            "statefulset_controller_stale_sync_skips_total{group=\"\",resource=\"pods\"} 1",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
