//! One pass over a Job: what its pods amount to, whether it is over, and which pods it still needs.
//!
//! Pure. Invariant: a Job is Complete or Failed only when every pod has ended and is counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::indexes::Indexes;
use super::pods::{
    all_index_failures, failures_after, index_of, is_indexed, is_succeeded, new_pod, replaces_only_failed,
};
use super::policy::{Meaning, meaning, met_success_rule};
use super::tally::{Tally, tally};
use crate::metrics::PodReason;
use crate::pods::{is_active, is_ready, is_terminating, phase};
use crate::replica_set::sort_for_deletion;

/// At most so many pods are created or deleted in one go.
const BURST: usize = 500;

/// How failures of a Job's pods hold up new ones: counted since the last success, and the last one's time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    pub(crate) in_a_row: u32,
    pub(crate) last: Option<Timestamp>,
}

impl Failures {
    /// How long to wait before the next pod: 10 s, doubled with each failure, at most 10 minutes.
    pub(crate) fn wait(self, now: Timestamp) -> Option<Duration> {
        let exponent = self.in_a_row.checked_sub(1)?;
        let pause = Duration::from_secs(10).saturating_mul(2u32.saturating_pow(exponent.min(20)));
        let pause = SignedDuration::try_from(pause.min(Duration::from_secs(600))).ok()?;
        Duration::try_from(pause - now.duration_since(self.last?)).ok().filter(|left| !left.is_zero())
    }
}

/// What is to be said about a Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announcement {
    pub(crate) is_warning: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// What one pass does.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) status: JobStatus,
    pub(crate) create: Vec<Pod>,
    /// Pods that are not needed: their finalizers go first, so that they do not count as failed.
    pub(crate) discard: Vec<Arc<Pod>>,
    /// Pods of a Job that is over: they count as failed.
    pub(crate) terminate: Vec<Arc<Pod>>,
    /// Pods whose end the written status notes: their finalizers go after that.
    pub(crate) release: Vec<Arc<Pod>>,
    /// Pods that ended since the last pass.
    pub(crate) fresh: Vec<Arc<Pod>>,
    pub(crate) announce: Vec<Announcement>,
    /// Why pods are created.
    pub(crate) reason: PodReason,
    /// How many of the pods that ended rules of the failure policy are about, by their action.
    pub(crate) by_policy: BTreeMap<String, u64>,
    pub(crate) look_again: Option<Duration>,
}

/// Whether a condition of a type is True.
pub(crate) fn has_condition(status: &JobStatus, type_: &str) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// Whether a Job is over for good.
pub(crate) fn is_finished(status: &JobStatus) -> bool {
    has_condition(status, "Complete") || has_condition(status, "Failed")
}

fn is_decided(status: &JobStatus) -> bool {
    ["FailureTarget", "SuccessCriteriaMet"].iter().any(|type_| has_condition(status, type_))
}

/// Plans a pass. `may_change_pods` is false while the cache lags.
pub(crate) fn plan(job: &Job, pods: &[Arc<Pod>], failures: Failures, may_change_pods: bool, now: Timestamp) -> Plan {
    let Some(spec) = &job.spec else { return Plan::default() };
    let mut status = job.status.clone().unwrap_or_default();
    let is_ending = job.metadata.deletion_timestamp.is_some() || is_decided(&status);
    let counts = tally(spec, &mut status, pods, is_ending);
    let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
    let terminating = pods.iter().filter(|pod| is_terminating(pod)).count() as i32;
    let mut pass = Pass { job, spec, pods, active, terminating, counts, now, plan: Plan { status, ..Plan::default() } };
    pass.note_start_and_suspension();
    pass.judge();
    if may_change_pods && job.metadata.deletion_timestamp.is_none() {
        pass.plan_pods(failures);
    }
    pass.finish()
}

struct Pass<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pods: &'a [Arc<Pod>],
    active: Vec<Arc<Pod>>,
    terminating: i32,
    counts: Tally,
    now: Timestamp,
    plan: Plan,
}

impl Pass<'_> {
    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn note_start_and_suspension(&mut self) {
        let was_suspended = has_condition(&self.plan.status, "Suspended");
        if self.is_suspended() {
            if !was_suspended && !self.is_decided() {
                self.plan.status.start_time = None;
                self.set_condition("Suspended", "True", "JobSuspended", "Job suspended");
                self.announce(false, "Suspended", "Job suspended");
            }
        } else {
            if was_suspended {
                self.plan.status.start_time = Some(Time(self.now));
                self.set_condition("Suspended", "False", "JobResumed", "Job resumed");
                self.announce(false, "Resumed", "Job resumed");
            }
            self.plan.status.start_time.get_or_insert(Time(self.now));
        }
    }

    /// Whether it is settled how the Job ends.
    fn is_decided(&self) -> bool {
        is_decided(&self.plan.status)
    }

    /// Decides whether the Job has failed or succeeded.
    fn judge(&mut self) {
        if self.is_decided() {
            return;
        }
        if let Some((reason, message)) = self.failure() {
            self.set_condition("FailureTarget", "True", reason, &message);
        } else if let Some((reason, message)) = self.success() {
            self.set_condition("SuccessCriteriaMet", "True", reason, &message);
        }
    }

    fn failure(&mut self) -> Option<(&'static str, String)> {
        if let Some(text) = self.counts.fail_job.take() {
            return Some(("PodFailurePolicy", text));
        }
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if self.counts.failed > limit || self.restarts_exceed(limit) {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".to_owned()));
        }
        if self.is_past_deadline() {
            return Some(("DeadlineExceeded", "Job was active longer than specified deadline".to_owned()));
        }
        self.spec.backoff_limit_per_index?;
        let failed = self.counts.failed_indexes.len();
        if self.spec.max_failed_indexes.is_some_and(|most| failed > usize::try_from(most).unwrap_or_default()) {
            let text = "Job has exceeded the specified maximal number of failed indexes";
            return Some(("MaxFailedIndexesExceeded", text.to_owned()));
        }
        let all = usize::try_from(self.spec.completions.unwrap_or_default()).unwrap_or_default();
        let is_over = failed + self.counts.succeeded_indexes.len() >= all;
        (failed > 0 && is_over && self.active.is_empty())
            .then(|| ("FailedIndexes", "Job has failed indexes".to_owned()))
    }

    fn success(&self) -> Option<(&'static str, String)> {
        if let Some(text) = met_success_rule(self.spec, &self.counts.succeeded_indexes) {
            return Some(("SuccessPolicy", text));
        }
        let is_reached = match self.spec.completions {
            // Work queue: one success says that the queue is empty, the others finish what they have.
            None => self.counts.succeeded > 0 && self.active.is_empty(),
            Some(completions) => self.counts.succeeded >= completions && self.active.is_empty(),
        };
        is_reached.then(|| ("CompletionsReached", "Reached expected number of succeeded pods".to_owned()))
    }

    /// Pods that restart in place count their restarts.
    fn restarts_exceed(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let mut restarts = 0;
        for pod in self.pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending")) {
            let Some(status) = &pod.status else { continue };
            let containers = status.container_statuses.iter().flatten();
            let all = containers.chain(status.init_container_statuses.iter().flatten());
            restarts += all.map(|container| container.restart_count).sum::<i32>();
        }
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn deadline_left(&self) -> Option<SignedDuration> {
        let seconds = self.spec.active_deadline_seconds.filter(|_| !self.is_suspended())?;
        let start = self.plan.status.start_time.as_ref()?.0;
        Some(SignedDuration::from_secs(seconds) - self.now.duration_since(start))
    }

    fn is_past_deadline(&self) -> bool {
        self.deadline_left().is_some_and(|left| left <= SignedDuration::ZERO)
    }

    fn plan_pods(&mut self, failures: Failures) {
        if self.is_decided() {
            self.plan.terminate = self.active.clone();
            return;
        }
        if self.is_suspended() {
            self.plan.discard = self.active.clone();
            return;
        }
        let wanted = self.wanted_active();
        let active = self.active.len() as i32;
        let surplus = usize::try_from(active - wanted).unwrap_or_default();
        self.plan.discard = self.surplus(surplus);
        self.plan.discard.truncate(BURST);
        if !self.plan.discard.is_empty() {
            return;
        }
        let ending = if replaces_only_failed(self.spec) { self.terminating } else { 0 };
        let missing = usize::try_from(wanted - active - ending).unwrap_or_default().min(BURST);
        if missing == 0 {
            return;
        }
        // With a limit for each index, each index waits for itself.
        match failures.wait(self.now).filter(|_| self.spec.backoff_limit_per_index.is_none()) {
            Some(wait) => self.look_again(wait),
            None => self.plan_creation(missing),
        }
    }

    fn wanted_active(&self) -> i32 {
        let parallelism = self.spec.parallelism.unwrap_or(1);
        match self.spec.completions {
            None if self.counts.succeeded > 0 => self.active.len() as i32,
            None => parallelism,
            Some(completions) => {
                let done = self.counts.succeeded + self.counts.failed_indexes.len() as i32;
                (completions - done).clamp(0, parallelism)
            }
        }
    }

    /// Pods of indexes that need none or have one already, then the least valuable ones.
    fn surplus(&self, at_least: usize) -> Vec<Arc<Pod>> {
        let mut ranked = self.active.clone();
        sort_for_deletion(&mut ranked, &[], self.now);
        if !is_indexed(self.spec) {
            ranked.truncate(at_least);
            return ranked;
        }
        let completions = self.spec.completions.unwrap_or_default();
        let mut seen = Indexes::new();
        // The most valuable pod of an index stays.
        let (useful, mut useless): (Vec<_>, Vec<_>) = ranked.into_iter().rev().partition(|pod| {
            index_of(pod).is_some_and(|index| (0..completions).contains(&index) && seen.insert(index))
        });
        let more = at_least.saturating_sub(useless.len());
        useless.extend(useful.into_iter().rev().take(more));
        useless
    }

    fn plan_creation(&mut self, count: usize) {
        if !is_indexed(self.spec) {
            self.plan.create = vec![new_pod(self.job, self.spec, None, (0, 0)); count];
            return;
        }
        let last = self.last_pods();
        let taken: Indexes = self
            .pods
            .iter()
            .filter(|pod| is_active(pod) || replaces_only_failed(self.spec) && is_terminating(pod))
            .filter_map(|pod| index_of(pod))
            .collect();
        let mut free: Vec<i32> = (0..self.spec.completions.unwrap_or_default())
            .filter(|index| !taken.contains(index))
            .filter(|index| !self.counts.succeeded_indexes.contains(index))
            .filter(|index| !self.counts.failed_indexes.contains(index))
            .collect();
        free.truncate(count);
        for index in free {
            let last = last.get(&index).filter(|_| self.spec.backoff_limit_per_index.is_some());
            if let Some(wait) = last.and_then(|pod| self.index_wait(pod)) {
                self.look_again(wait);
                continue;
            }
            let is_ignored = last.is_some_and(|pod| meaning(self.spec, pod) == Meaning::Ignore);
            let failures = failures_after(last, is_ignored);
            self.plan.create.push(new_pod(self.job, self.spec, Some(index), failures));
        }
    }

    /// The last pod of each index that did not succeed.
    fn last_pods(&self) -> BTreeMap<i32, Arc<Pod>> {
        let mut last: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        let order = |pod: &Pod| (all_index_failures(pod), pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        for pod in self.pods.iter().filter(|pod| !is_succeeded(pod)) {
            let Some(index) = index_of(pod) else { continue };
            let is_later = last.get(&index).is_none_or(|known| order(known) < order(pod));
            if is_later {
                last.insert(index, pod.clone());
            }
        }
        last
    }

    fn index_wait(&self, pod: &Pod) -> Option<Duration> {
        let in_a_row = u32::try_from(all_index_failures(pod)).unwrap_or_default() + 1;
        Failures { in_a_row, last: Some(super::pods::finished_at(pod, self.now)) }.wait(self.now)
    }

    fn finish(mut self) -> Plan {
        // What was kept for successors counts in the next pass.
        let is_open = self.counts.is_open || self.counts.holds_some;
        let all_ended = self.active.is_empty() && self.terminating == 0 && !is_open;
        if self.is_decided() && all_ended {
            self.conclude();
        }
        if let Some(left) = self.deadline_left().and_then(|left| Duration::try_from(left).ok())
            && !self.is_decided()
        {
            self.look_again(left);
        }
        let ready = self.active.iter().filter(|pod| is_ready(pod)).count() as i32;
        let status = &mut self.plan.status;
        status.active = Some(self.active.len() as i32).filter(|active| *active > 0);
        status.ready = Some(ready);
        status.terminating = Some(self.terminating);
        self.plan.reason = match self.spec.pod_replacement_policy.as_deref() {
            Some("Failed") if self.counts.failed > 0 => PodReason::Failed,
            _ if self.counts.failed > 0 || self.terminating > 0 => PodReason::TerminatingOrFailed,
            _ => PodReason::New,
        };
        self.plan.by_policy = self.counts.by_policy;
        self.plan.release = self.counts.release;
        self.plan.fresh = self.counts.fresh;
        self.plan
    }

    /// Turns how the Job will end into how it has ended.
    fn conclude(&mut self) {
        let find = |type_: &str| {
            let mut conditions = self.plan.status.conditions.iter().flatten();
            let found = conditions.find(|condition| condition.type_ == type_ && condition.status == "True");
            found.map(|found| (found.reason.clone().unwrap_or_default(), found.message.clone().unwrap_or_default()))
        };
        if let Some((reason, message)) = find("SuccessCriteriaMet") {
            self.plan.status.completion_time = Some(Time(self.now));
            self.set_condition("Complete", "True", &reason, &message);
            if self.spec.completions.is_some_and(|wanted| self.plan.status.succeeded.unwrap_or_default() > wanted) {
                let text = "Too many succeeded pods running after completion count reached";
                self.announce(true, "TooManySucceededPods", text);
            }
            self.announce(false, "Completed", "Job completed");
        } else if let Some((reason, message)) = find("FailureTarget") {
            self.set_condition("Failed", "True", &reason, &message);
            self.announce(true, &reason, &message);
        }
    }

    fn set_condition(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let conditions = self.plan.status.conditions.get_or_insert_default();
        let fresh = JobCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        };
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(known) => *known = fresh,
            None => conditions.push(fresh),
        }
    }

    fn announce(&mut self, is_warning: bool, reason: &str, message: &str) {
        self.plan.announce.push(Announcement { is_warning, reason: reason.to_owned(), message: message.to_owned() });
    }

    fn look_again(&mut self, after: Duration) {
        self.plan.look_again = Some(self.plan.look_again.map_or(after, |sooner| sooner.min(after)));
    }
}

#[cfg(test)]
mod tests;
