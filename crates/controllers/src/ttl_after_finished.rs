//! The TTL-after-finished controller: deletes Jobs that ended so long ago as they say.
//!
//! Invariant: the time is checked against a fresh read before the deletion, as it may have been changed.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kedge_client::{Change, Informer, Queue, object_key};
use kedge_meta::ObjectKey;
use kube::api::{Api, DeleteParams, Preconditions, PropagationPolicy};

use crate::error::unless_gone;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let jobs = starter.informer::<Job>();
    let queue = Queue::new();
    starter.enqueue(&jobs, &queue, |change| match change {
        Change::Deleted(_) => Vec::new(),
        change => vec![object_key(&**change.object())],
    });
    let workers = starter.context.config.concurrency;
    let controller = Ttl { context: starter.context.clone(), jobs };
    starter.work(Arc::new(controller), queue, workers);
}

struct Ttl {
    context: Context,
    jobs: Informer<Job>,
}

/// How long a Job has left; `None` where it stays.
fn time_left(job: &Job, now: Timestamp) -> Option<SignedDuration> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let mut conditions = job.status.as_ref()?.conditions.as_ref()?.iter();
    let over = conditions
        .find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")?;
    let ended = over.last_transition_time.as_ref()?.0;
    let is_deleted = job.metadata.deletion_timestamp.is_some();
    (!is_deleted).then(|| SignedDuration::from_secs(ttl.into()) - now.duration_since(ended))
}

impl Controller for Ttl {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let now = self.context.now();
        let Some(left) = self.jobs.get(key).and_then(|job| time_left(&job, now)) else { return Ok(Next::Done) };
        if let Ok(left) = Duration::try_from(left)
            && !left.is_zero()
        {
            return Ok(Next::After(left));
        }
        let jobs = Api::<Job>::namespaced(self.context.client.clone(), &key.namespace);
        let fresh = jobs.get_opt(&key.name).await?;
        let is_due = |job: &Job| time_left(job, now).is_some_and(|left| left <= SignedDuration::ZERO);
        if let Some(job) = fresh.filter(is_due) {
            let late = time_left(&job, now).map(|left| -left);
            let parameters = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Foreground),
                preconditions: Some(Preconditions { uid: job.metadata.uid, resource_version: None }),
                ..DeleteParams::default()
            };
            unless_gone(jobs.delete(&key.name, &parameters).await)?;
            late.iter().for_each(|late| self.context.metrics.workloads().job_expired(*late));
        }
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::batch::v1::{JobCondition, JobSpec, JobStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn only_finished_jobs_with_a_ttl_have_their_days_counted() {
        let check = |ttl: Option<i32>, condition: Option<&str>, expected: Option<i64>| {
            let conditions = condition.map(|type_| {
                vec![JobCondition {
                    type_: type_.to_owned(),
                    status: "True".to_owned(),
                    last_transition_time: Some(Time(Timestamp::from_second(100).unwrap())),
                    ..JobCondition::default()
                }]
            });
            let job = Job {
                spec: Some(JobSpec { ttl_seconds_after_finished: ttl, ..JobSpec::default() }),
                status: Some(JobStatus { conditions, ..JobStatus::default() }),
                ..Job::default()
            };
            let left = time_left(&job, Timestamp::from_second(110).unwrap());
            assert_eq!(left.map(|left| left.as_secs()), expected);
        };
        check(Some(30), Some("Complete"), Some(20));
        check(Some(5), Some("Failed"), Some(-5));
        check(Some(30), Some("Suspended"), None);
        check(None, Some("Complete"), None);
    }
}
