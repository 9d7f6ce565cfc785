//! The Job controller: runs pods to completion and counts each of them exactly once.
//!
//! Invariant: a finished pod keeps its finalizer until the Job's status notes its end.

mod indexes;
#[cfg(test)]
mod level_driven;
mod plan;
mod pods;
mod policy;
mod tally;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::{LabelSelector, ObjectKey};
use kube::api::{Api, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::error::{ReconcileError, unless_gone};
use crate::expectations::Expectations;
use crate::metrics::{JobAction, Waiting};
use crate::owners::{
    controller_of, execute_tracked_claims, is_controlled_by, owners_of_change, plan_claims, selector_of, selects,
};
use crate::pod_control::{PodControl, slow_start};
use crate::pods::{is_terminal, name_of};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
pub(crate) use plan::is_finished;
use plan::{Failures, Plan};
use pods::{FINALIZER, finished_at, has_finalizer, is_succeeded};

const MANAGER: &str = "kubernetes.io/job-controller";

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let jobs = starter.informer::<Job>();
    let pods = starter.informer::<Pod>();
    let queue = Queue::new();
    let metrics = starter.context.metrics.clone();
    starter.enqueue(&jobs, &queue, move |change| {
        if let Change::Added(job) = change
            && let Some(manager) = is_of_another(job)
        {
            metrics.jobs().of_another(manager);
        }
        vec![object_key(&**change.object())]
    });
    let (owners, metrics) = (jobs.clone(), starter.context.metrics.clone());
    starter.enqueue(&pods, &queue, move |change| {
        tracking_of(change).into_iter().for_each(|is_tracked| metrics.jobs().tracked(is_tracked));
        jobs_of_pod(change, &owners)
    });
    let workers = starter.context.config.concurrency;
    let controller = Jobs {
        context: starter.context.clone(),
        jobs,
        pods,
        expectations: Expectations::default(),
        failures: Mutex::default(),
    };
    starter.work(Arc::new(controller), queue, workers);
}

/// Who sees to a Job, where that is not this controller.
fn is_of_another(job: &Job) -> Option<&str> {
    job.spec.as_ref()?.managed_by.as_deref().filter(|manager| *manager != MANAGER)
}

fn selector(job: &Job) -> Option<LabelSelector> {
    selector_of(job.spec.as_ref().and_then(|spec| spec.selector.as_ref()))
}

/// Whether a Job takes over pods that it selects.
fn adopts(job: &Job) -> bool {
    let is_over = job.status.as_ref().is_some_and(is_finished);
    is_of_another(job).is_none() && job.metadata.deletion_timestamp.is_none() && !is_over
}

/// A pod that waits to be counted, though no Job controls it or will, is released under a key without a name.
fn jobs_of_pod(change: &Change<Pod>, jobs: &Informer<Job>) -> Vec<ObjectKey> {
    let mut keys = owners_of_change(change, jobs, selector);
    let pod = change.object();
    let is_orphan = controller_of(&pod.metadata).is_none();
    let is_taken_over = || keys.iter().any(|key| jobs.get(key).is_some_and(|job| adopts(&job)));
    if !matches!(change, Change::Deleted(_)) && has_finalizer(pod) && is_orphan && !is_taken_over() {
        keys.push(ObjectKey::new(pod.metadata.namespace.clone().unwrap_or_default(), ""));
    }
    keys
}

/// Whether a change makes a finished pod one that waits to be counted, or ends that.
fn tracking_of(change: &Change<Pod>) -> Option<bool> {
    let is_tracked = |pod: &Pod| is_terminal(pod) && has_finalizer(pod);
    let (before, after) = match change {
        Change::Added(new) => (false, is_tracked(new)),
        Change::Updated { old, new } => (is_tracked(old), is_tracked(new)),
        Change::Deleted(old) => (is_tracked(old), false),
    };
    (before != after).then_some(after)
}

struct Jobs {
    context: Context,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    expectations: Expectations,
    failures: Mutex<HashMap<ObjectKey, Failures>>,
}

impl Controller for Jobs {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(job) = self.jobs.get(key) else {
            self.expectations.forget(key);
            self.failures.lock().remove(key);
            return self.release_leftovers(key).await;
        };
        if job.spec.is_none() || is_of_another(&job).is_some() {
            return Ok(Next::Done);
        }
        if is_finished(&job.status.clone().unwrap_or_default()) {
            self.failures.lock().remove(key);
            let selector = selector(&job).filter(|selector| !selector.is_everything());
            let is_selected = |pod: &Pod| selector.as_ref().is_some_and(|selector| selects(selector, &pod.metadata));
            let owned = |pod: &Pod| {
                let is_orphan = controller_of(&pod.metadata).is_none();
                has_finalizer(pod) && (is_controlled_by(&pod.metadata, &job.metadata) || is_orphan && is_selected(pod))
            };
            let pods: Vec<Arc<Pod>> =
                self.pods.in_namespace(&key.namespace).into_iter().filter(|pod| owned(pod)).collect();
            self.release(&pods).await?;
            return Ok(Next::Done);
        }
        let Some(selector) = selector(&job).filter(|selector| !selector.is_everything()) else { return Ok(Next::Done) };
        let (now, began) = (self.context.now(), Instant::now());
        let lag = self.expectations.lag(key, &self.pods, now);
        if lag.is_some() {
            self.context.metrics.workloads().waits_for_pods(Waiting::Jobs);
        }
        let claims = plan_claims(&job.metadata, &selector, self.pods.in_namespace(&key.namespace), |_| true);
        let pods = execute_tracked_claims(&self.context.client, &*job, claims, &[FINALIZER]).await?;
        let failures = self.failures.lock().get(key).copied().unwrap_or_default();
        let mut plan = plan::plan(&job, &pods, failures, lag.is_none(), now);
        let updated = count_failures(failures, &plan.fresh, now);
        if updated != failures {
            // The pods that just failed hold up their own successors.
            plan = plan::plan(&job, &pods, updated, lag.is_none(), now);
        }
        let look_again = plan.look_again;
        let action = match &plan {
            plan if !plan.create.is_empty() => JobAction::PodsCreated,
            plan if !plan.discard.is_empty() || !plan.terminate.is_empty() => JobAction::PodsDeleted,
            _ => JobAction::Tracking,
        };
        let is_idle = action == JobAction::Tracking && plan.release.is_empty();
        let result = self.execute(key, &job, plan).await;
        self.context.metrics.jobs().synced(&job, action, result.is_ok(), began.elapsed());
        if result.is_ok() {
            self.failures.lock().insert(key.clone(), updated);
        }
        result?;
        let next = Next::Done.sooner(lag).sooner(look_again);
        Ok(if is_idle { next.after_idle_look_at(pods.len()) } else { next })
    }
}

/// Brings the count of failures in a row up to date with pods that ended since.
fn count_failures(mut failures: Failures, ended: &[Arc<Pod>], now: Timestamp) -> Failures {
    let mut ended: Vec<(Timestamp, bool)> =
        ended.iter().map(|pod| (finished_at(pod, now), is_succeeded(pod))).collect();
    ended.sort();
    for (at, is_success) in ended {
        failures = match is_success {
            true => Failures::default(),
            false => Failures { in_a_row: failures.in_a_row + 1, last: failures.last.max(Some(at)) },
        };
    }
    failures
}

impl Jobs {
    async fn execute(&self, key: &ObjectKey, job: &Job, plan: Plan) -> Result<(), ReconcileError> {
        let owner = object_reference(job);
        let control = PodControl { context: &self.context, expectations: &self.expectations, key, owner: &owner };
        let starts = job.status.as_ref().and_then(|status| status.start_time.as_ref()).is_none();
        // A Job's start is on record before its pods are: the deadline counts from it.
        let changes = job.status.as_ref() != Some(&plan.status);
        if starts && changes {
            self.write_status(key, job, &plan).await?;
        }
        self.release(&plan.discard).await?;
        control.delete_many(&plan.discard).await?;
        control.delete_many(&plan.terminate).await?;
        let created = self.create_pods(&control, &plan).await;
        self.context.metrics.jobs().by_policy(&plan.by_policy);
        if !starts && changes {
            self.write_status(key, job, &plan).await?;
        }
        self.release(&plan.release).await?;
        created
    }

    async fn create_pods(&self, control: &PodControl<'_>, plan: &Plan) -> Result<(), ReconcileError> {
        let counts = [AtomicU64::new(0), AtomicU64::new(0)];
        let [succeeded, failed] = &counts;
        let created = slow_start(&plan.create, |pod| async move {
            let created = control.create(pod).await;
            let count = if created.is_ok() { succeeded } else { failed };
            count.fetch_add(1, Ordering::Relaxed);
            created.map(|_| ())
        });
        let created = created.await;
        let [succeeded, failed] = counts.map(AtomicU64::into_inner);
        self.context.metrics.jobs().pods_created(plan.reason, succeeded, failed);
        created
    }

    async fn write_status(&self, key: &ObjectKey, job: &Job, plan: &Plan) -> Result<(), ReconcileError> {
        let jobs = Api::<Job>::namespaced(self.context.client.clone(), &key.namespace);
        let changed = Job { status: Some(plan.status.clone()), ..job.clone() };
        jobs.replace_status(&key.name, &PostParams::default(), &changed).await?;
        self.context.metrics.jobs().noted(job, &plan.status);
        let about = object_reference(job);
        for said in &plan.announce {
            match said.is_warning {
                true => self.context.warning(&about, &said.reason, &said.message),
                false => self.context.normal(&about, &said.reason, &said.message),
            }
        }
        Ok(())
    }

    /// Takes the tracking finalizer off pods.
    async fn release(&self, pods: &[Arc<Pod>]) -> Result<(), ReconcileError> {
        slow_start(pods, |pod| self.release_one(pod)).await
    }

    async fn release_one(&self, pod: &Pod) -> Result<(), ReconcileError> {
        if !has_finalizer(pod) {
            return Ok(());
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let pods = Api::<Pod>::namespaced(self.context.client.clone(), namespace);
        let patch = json!({
            "metadata": { "uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER] },
        });
        let name = name_of(&pod.metadata);
        match unless_gone(pods.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await) {
            Ok(_) => Ok(()),
            // Another pod has the name by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Pods of a Job that is gone, or of none, wait for nobody.
    async fn release_leftovers(&self, key: &ObjectKey) -> Outcome {
        let is_left = |pod: &Pod| {
            has_finalizer(pod)
                && match controller_of(&pod.metadata) {
                    None => key.name.is_empty(),
                    Some(owner) => owner.kind == "Job" && owner.name == key.name,
                }
        };
        let pods: Vec<Arc<Pod>> =
            self.pods.in_namespace(&key.namespace).into_iter().filter(|pod| is_left(pod)).collect();
        self.release(&pods).await?;
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::{pod, terminating, with_phase};

    #[test]
    fn pods_wait_to_be_counted_from_their_end_until_their_finalizer_goes() {
        let tracked = |phase: &str, is_tracked: bool| {
            let mut pod = with_phase(pod("a"), phase);
            pod.metadata.finalizers = is_tracked.then(|| vec![FINALIZER.to_owned()]);
            Arc::new(pod)
        };
        let (running, ended, counted) = (tracked("Running", true), tracked("Failed", true), tracked("Failed", false));
        let check = |change: Change<Pod>, expected: Option<bool>| assert_eq!(tracking_of(&change), expected);
        check(Change::Added(running.clone()), None);
        check(Change::Added(ended.clone()), Some(true));
        check(Change::Updated { old: running, new: ended.clone() }, Some(true));
        check(Change::Updated { old: ended.clone(), new: ended.clone() }, None);
        check(Change::Updated { old: ended.clone(), new: counted.clone() }, Some(false));
        check(Change::Deleted(ended), Some(false));
        check(Change::Deleted(counted), None);
    }

    #[test]
    fn a_success_ends_the_row_of_failures() {
        let failed = |name: &str| Arc::new(terminating(with_phase(pod(name), "Failed")));
        let succeeded = |name: &str| Arc::new(terminating(with_phase(pod(name), "Succeeded")));
        let now = Timestamp::UNIX_EPOCH;
        let two = count_failures(Failures::default(), &[failed("a"), failed("b")], now);
        assert_eq!(two, Failures { in_a_row: 2, last: Some(now) });
        assert_eq!(count_failures(two, &[succeeded("c")], now), Failures::default());
    }
}
