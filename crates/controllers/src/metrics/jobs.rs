//! What is counted of Jobs and their pods.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use kedge_metrics::{Counters, Histograms, Text};

/// 4 ms, and each twice the one before.
const SYNCS: &[f64] =
    &[0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384, 32.768, 65.536];

/// What a pass over a Job came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobAction {
    Tracking,
    PodsCreated,
    PodsDeleted,
}

impl JobAction {
    fn name(self) -> &'static str {
        match self {
            Self::Tracking => "tracking",
            Self::PodsCreated => "pods_created",
            Self::PodsDeleted => "pods_deleted",
        }
    }
}

/// Why a Job's pods are created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PodReason {
    #[default]
    New,
    /// In the place of pods that have failed, or are about to end.
    TerminatingOrFailed,
    /// In the place of pods that have failed; those that are about to end are waited for.
    Failed,
}

impl PodReason {
    fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::TerminatingOrFailed => "recreate_terminating_or_failed",
            Self::Failed => "recreate_failed",
        }
    }
}

/// The counters.
pub(crate) struct JobMetrics {
    syncs: Counters,
    sync_times: Histograms,
    finished: Counters,
    pods_finished: Counters,
    indexes_finished: Counters,
    external: Counters,
    pods_created: Counters,
    by_policy: Counters,
    tracked: Counters,
}

impl Default for JobMetrics {
    fn default() -> Self {
        let of_sync = &["completion_mode", "result", "action"];
        Self {
            syncs: Counters::new("job_controller_job_syncs_total", of_sync, "The number of job syncs"),
            sync_times: Histograms::new(
                "job_controller_job_sync_duration_seconds",
                of_sync,
                SYNCS,
                "The time it took to sync a job",
            ),
            finished: Counters::new(
                "job_controller_jobs_finished_total",
                &["completion_mode", "result", "reason"],
                "The number of finished jobs",
            ),
            pods_finished: Counters::new(
                "job_controller_job_pods_finished_total",
                &["completion_mode", "result"],
                "The number of finished Pods that are fully tracked",
            ),
            indexes_finished: Counters::new(
                "job_controller_job_finished_indexes_total",
                &["status", "backoffLimit"],
                "The number of finished indexes.",
            ),
            external: Counters::new(
                "job_controller_jobs_by_external_controller_total",
                &["controller_name"],
                "The number of Jobs managed by an external controller",
            ),
            pods_created: Counters::new(
                "job_controller_job_pods_creation_total",
                &["reason", "status"],
                "The number of Pods created by the Job controller labelled with a reason for the Pod creation.",
            ),
            by_policy: Counters::new(
                "job_controller_pod_failures_handled_by_failure_policy_total",
                &["action"],
                "The number of failed Pods handled by failure policy, by the action of the rule that matched.",
            ),
            tracked: Counters::new(
                "job_controller_terminated_pods_tracking_finalizer_total",
                &["event"],
                "The number of terminated pods (phase=Failed|Succeeded) that have the finalizer batch.kubernetes.io/job-tracking",
            ),
        }
    }
}

impl JobMetrics {
    /// A pass over a Job ended.
    pub(crate) fn synced(&self, job: &Job, action: JobAction, is_good: bool, took: Duration) {
        let labels = [mode_of(job), if is_good { "success" } else { "error" }, action.name()];
        self.syncs.count(&labels);
        self.sync_times.observe(&labels, took);
    }

    /// The status of a Job was written: what it counts more than before, and whether the Job ended.
    pub(crate) fn noted(&self, job: &Job, after: &JobStatus) {
        let none = JobStatus::default();
        let before = job.status.as_ref().unwrap_or(&none);
        let more = |after: Option<i32>, before: Option<i32>| {
            u64::try_from(after.unwrap_or_default() - before.unwrap_or_default()).unwrap_or_default()
        };
        let counted = [("succeeded", after.succeeded, before.succeeded), ("failed", after.failed, before.failed)];
        for (result, after, before) in counted {
            if more(after, before) > 0 {
                self.pods_finished.add(&[mode_of(job), result], more(after, before));
            }
        }
        let limit = job.spec.as_ref().and_then(|spec| spec.backoff_limit_per_index);
        let limit = if limit.is_some() { "perIndex" } else { "global" };
        let indexes = |list: &Option<String>| list.as_deref().map_or(0, count_indexes);
        for (status, after, before) in [
            ("succeeded", &after.completed_indexes, &before.completed_indexes),
            ("failed", &after.failed_indexes, &before.failed_indexes),
        ] {
            let more = indexes(after).saturating_sub(indexes(before));
            if more > 0 {
                self.indexes_finished.add(&[status, limit], more);
            }
        }
        let is_over = |status: &JobStatus| crate::job::is_finished(status);
        if is_over(after) && !is_over(before) {
            let mut conditions = after.conditions.iter().flatten().filter(|condition| condition.status == "True");
            let ending = conditions.find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed"));
            let result = if ending.is_some_and(|ending| ending.type_ == "Failed") { "failed" } else { "succeeded" };
            let reason = ending.and_then(|ending| ending.reason.as_deref()).unwrap_or_default();
            self.finished.count(&[mode_of(job), result, reason]);
        }
    }

    /// A Job came that somebody else sees to.
    pub(crate) fn of_another(&self, manager: &str) {
        self.external.count(&[manager]);
    }

    /// So many pods were created for a reason, and so many could not be.
    pub(crate) fn pods_created(&self, reason: PodReason, succeeded: u64, failed: u64) {
        for (status, count) in [("succeeded", succeeded), ("failed", failed)] {
            if count > 0 {
                self.pods_created.add(&[reason.name(), status], count);
            }
        }
    }

    /// The ends of pods were noted, so many of them as rules with an action say.
    pub(crate) fn by_policy(&self, counts: &BTreeMap<String, u64>) {
        counts.iter().for_each(|(action, count)| self.by_policy.add(&[action], *count));
    }

    /// A finished pod waits to be counted, or no longer does.
    pub(crate) fn tracked(&self, is_tracked: bool) {
        self.tracked.count(&[if is_tracked { "add" } else { "delete" }]);
    }

    pub(super) fn write(&self, text: &mut Text) {
        self.syncs.write(text);
        self.sync_times.write(text);
        self.finished.write(text);
        self.pods_finished.write(text);
        self.indexes_finished.write(text);
        self.external.write(text);
        self.pods_created.write(text);
        self.by_policy.write(text);
        self.tracked.write(text);
    }
}

fn mode_of(job: &Job) -> &str {
    job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref()).unwrap_or("NonIndexed")
}

/// How many numbers a list such as `1,3-5` has.
fn count_indexes(list: &str) -> u64 {
    let of_part = |part: &str| match part.split_once('-') {
        Some((first, last)) => Some(last.parse::<u64>().ok()?.checked_sub(first.parse().ok()?)? + 1),
        None => part.parse::<u64>().ok().map(|_| 1),
    };
    list.split(',').filter_map(of_part).sum()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::{JobCondition, JobSpec};

    use super::super::shown;
    use super::*;

    #[test]
    fn jobs_are_counted_as_they_end() {
        let metrics = JobMetrics::default();
        let spec = JobSpec { completion_mode: Some("Indexed".to_owned()), ..JobSpec::default() };
        let before = JobStatus { succeeded: Some(1), completed_indexes: Some("0".to_owned()), ..JobStatus::default() };
        let job = Job { spec: Some(spec), status: Some(before), ..Job::default() };
        let ending = JobCondition {
            type_: "Failed".to_owned(),
            status: "True".to_owned(),
            reason: Some("BackoffLimitExceeded".to_owned()),
            ..JobCondition::default()
        };
        let after = JobStatus {
            succeeded: Some(4),
            failed: Some(2),
            completed_indexes: Some("0,2-4".to_owned()),
            conditions: Some(vec![ending]),
            ..JobStatus::default()
        };
        metrics.noted(&job, &after);
        metrics.synced(&job, JobAction::PodsCreated, true, Duration::from_millis(5));
        // The same once more is nothing new.
        metrics.noted(&Job { status: Some(after.clone()), ..job.clone() }, &after);
        metrics.pods_created(PodReason::New, 2, 0);
        metrics.pods_created(PodReason::Failed, 0, 1);
        metrics.by_policy(&BTreeMap::from([("Ignore".to_owned(), 2)]));
        metrics.tracked(true);
        let text = shown(|text| metrics.write(text));
        for line in [
            "job_controller_job_syncs_total{completion_mode=\"Indexed\",result=\"success\",action=\"pods_created\"} 1",
            "job_controller_job_sync_duration_seconds_bucket{completion_mode=\"Indexed\",result=\"success\",action=\"pods_created\",le=\"0.008\"} 1",
            "job_controller_jobs_finished_total{completion_mode=\"Indexed\",result=\"failed\",reason=\"BackoffLimitExceeded\"} 1",
            "job_controller_job_pods_finished_total{completion_mode=\"Indexed\",result=\"failed\"} 2",
            "job_controller_job_pods_finished_total{completion_mode=\"Indexed\",result=\"succeeded\"} 3",
            "job_controller_job_finished_indexes_total{status=\"succeeded\",backoffLimit=\"global\"} 3",
            "job_controller_job_pods_creation_total{reason=\"new\",status=\"succeeded\"} 2",
            "job_controller_job_pods_creation_total{reason=\"recreate_failed\",status=\"failed\"} 1",
            "job_controller_pod_failures_handled_by_failure_policy_total{action=\"Ignore\"} 2",
            "job_controller_terminated_pods_tracking_finalizer_total{event=\"add\"} 1",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
