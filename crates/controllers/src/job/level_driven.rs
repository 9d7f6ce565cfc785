//! What a Job has counted after any history: each pod that ended, once, whatever was heard late, twice or not at all, and
//! wherever a pass was cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;

use super::plan::{Failures, has_condition, is_finished, plan};
use super::pods::{FINALIZER, has_finalizer, index_of};
use crate::histories::{Cached, history};
use crate::pods::fixtures::{pod, terminating, with_phase};
use crate::pods::{is_active, phase};

const COMPLETIONS: i32 = 5;

/// The API as it is, what the controller has heard of it, and the model: which pods ended how while they were tracked.
struct World {
    job: Job,
    pods: Cached<Pod>,
    seen_job: Job,
    version: u32,
    made: usize,
    succeeded: BTreeMap<String, Option<i32>>,
    failed: BTreeSet<String>,
}

impl World {
    fn new(is_indexed: bool) -> Self {
        let mut job = Job::default();
        job.metadata.name = Some("count".to_owned());
        job.spec = Some(JobSpec {
            completions: Some(COMPLETIONS),
            parallelism: Some(3),
            backoff_limit: Some(i32::MAX),
            completion_mode: is_indexed.then(|| "Indexed".to_owned()),
            ..JobSpec::default()
        });
        let mut world = Self {
            seen_job: job.clone(),
            job,
            pods: Cached::new(),
            version: 0,
            made: 0,
            succeeded: BTreeMap::new(),
            failed: BTreeSet::new(),
        };
        world.change_job(|_| {});
        world.seen_job = world.job.clone();
        world
    }

    fn change_job(&mut self, change: impl FnOnce(&mut Job)) {
        change(&mut self.job);
        self.version += 1;
        self.job.metadata.resource_version = Some(self.version.to_string());
    }

    fn happen(&mut self, (what, number): (u8, u16)) {
        let one = self.pods.nth(number);
        match what {
            0 | 1 => {
                let heard = if what == 0 { self.pods.nth_seen(number).or(one) } else { one };
                heard.iter().for_each(|name| self.pods.hear(name));
            }
            2 => self.seen_job = self.job.clone(),
            3 => self.end(one, "Succeeded"),
            4 => self.end(one, "Failed"),
            5 => self.delete(one),
            6 => self.end_deleted(),
            7 => self.change_job(|job| job.spec.get_or_insert_default().parallelism = Some(i32::from(number % 7))),
            _ => self.change_job(|job| job.spec.get_or_insert_default().suspend = Some(number % 2 == 0)),
        }
    }

    fn hear_everything(&mut self) {
        self.pods.hear_everything();
        self.seen_job = self.job.clone();
    }

    /// A pod comes to its end; one that is being deleted fails.
    fn end(&mut self, name: Option<String>, outcome: &str) {
        let Some(pod) = name.as_ref().and_then(|name| self.pods.real.get_mut(name)) else { return };
        if !matches!(phase(pod), "Running" | "Pending") {
            return;
        }
        let outcome = if pod.metadata.deletion_timestamp.is_some() { "Failed" } else { outcome };
        *pod = with_phase(pod.clone(), outcome);
        let pod = pod.clone();
        self.note(&pod, outcome == "Succeeded");
    }

    /// What the model says of a pod's end: the first one counts, and only of pods that are tracked.
    fn note(&mut self, pod: &Pod, is_success: bool) {
        let name = pod.metadata.name.clone().unwrap();
        if !has_finalizer(pod) || self.failed.contains(&name) || self.succeeded.contains_key(&name) {
            return;
        }
        if is_success {
            self.succeeded.insert(name, index_of(pod));
        } else {
            self.failed.insert(name);
        }
    }

    /// A deleted pod that was running counts as failed from then on.
    fn delete(&mut self, name: Option<String>) {
        let Some(pod) = name.as_ref().and_then(|name| self.pods.real.get_mut(name)) else { return };
        *pod = terminating(pod.clone());
        let pod = pod.clone();
        self.note(&pod, false);
        self.sweep();
    }

    fn end_deleted(&mut self) {
        let deleted = |pod: &&Pod| pod.metadata.deletion_timestamp.is_some();
        let names: Vec<String> =
            self.pods.real.values().filter(deleted).filter_map(|pod| pod.metadata.name.clone()).collect();
        names.into_iter().for_each(|name| self.end(Some(name), "Failed"));
        self.sweep();
    }

    /// Pods that are deleted, have ended and hold nothing back are gone.
    fn sweep(&mut self) {
        self.pods.real.retain(|_, pod| {
            let has_ended = !matches!(phase(pod), "Running" | "Pending");
            pod.metadata.deletion_timestamp.is_none() || !has_ended || has_finalizer(pod)
        });
    }

    fn release(&mut self, name: &str) {
        if let Some(pod) = self.pods.real.get_mut(name) {
            pod.metadata.finalizers = None;
        }
        self.sweep();
    }

    /// One pass, of which only so many effects come about; whether it had anything to do.
    fn look(&mut self, mut effects: usize) -> bool {
        let pods: Vec<Arc<Pod>> = self.pods.seen.values().cloned().map(Arc::new).collect();
        let mut may = || {
            let may = effects > 0;
            effects = effects.saturating_sub(1);
            may
        };
        let names = |pods: &[Arc<Pod>]| pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect::<Vec<_>>();
        if is_finished(&self.seen_job.status.clone().unwrap_or_default()) {
            let left: Vec<Arc<Pod>> = pods.into_iter().filter(|pod| has_finalizer(pod)).collect();
            names(&left).iter().filter(|_| may()).for_each(|name| self.release(name));
            return !left.is_empty();
        }
        let sees_all = self.pods.shows_writes();
        let plan = plan(&self.seen_job, &pods, Failures::default(), sees_all, Timestamp::UNIX_EPOCH);
        let starts = self.seen_job.status.as_ref().is_none_or(|status| status.start_time.is_none());
        let changes = self.seen_job.status.as_ref() != Some(&plan.status);
        let busy = changes || [&plan.discard, &plan.terminate, &plan.release].iter().any(|list| !list.is_empty());
        let busy = busy || !plan.create.is_empty();
        let write = |world: &mut Self| {
            let is_fresh = world.seen_job.metadata.resource_version == world.job.metadata.resource_version;
            if is_fresh {
                world.change_job(|job| job.status = Some(plan.status.clone()));
            }
            is_fresh
        };
        if starts && changes && !(may() && write(self)) {
            return busy;
        }
        for name in names(&plan.discard) {
            if !may() {
                return busy;
            }
            // Nobody counts it any more, however it ended while nobody looked.
            if self.pods.real.get(&name).is_some_and(has_finalizer) {
                self.succeeded.remove(&name);
                self.failed.remove(&name);
            }
            self.release(&name);
        }
        for pod in plan.discard.iter().chain(&plan.terminate) {
            if !may() {
                return busy;
            }
            self.pods.ask_to_delete(&**pod);
            self.delete(pod.metadata.name.clone());
        }
        for new in &plan.create {
            if !may() {
                return busy;
            }
            self.create(new);
        }
        if !starts && changes && !(may() && write(self)) {
            return busy;
        }
        names(&plan.release).iter().filter(|_| may()).for_each(|name| self.release(name));
        busy
    }

    fn create(&mut self, new: &Pod) {
        self.made += 1;
        let name = format!("count-{:04}", self.made);
        let mut made = pod(&name);
        made.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        made.metadata.annotations = new.metadata.annotations.clone();
        self.pods.create(made);
    }

    /// What the status says and what the model says, of successes and of failures.
    fn counts(&self) -> [(usize, usize); 2] {
        let status = self.job.status.clone().unwrap_or_default();
        let noted = status.uncounted_terminated_pods.unwrap_or_default();
        let sum = |count: Option<i32>, noted: Option<Vec<String>>| {
            usize::try_from(count.unwrap_or_default()).unwrap() + noted.unwrap_or_default().len()
        };
        let is_indexed = self.job.spec.as_ref().is_some_and(|spec| spec.completion_mode.is_some());
        let indexes: BTreeSet<_> = self.succeeded.values().flatten().collect();
        let succeeded = if is_indexed { indexes.len() } else { self.succeeded.len() };
        // The count of an indexed Job says of the noted ones already.
        let noted_successes = noted.succeeded.filter(|_| !is_indexed);
        [(sum(status.succeeded, noted_successes), succeeded), (sum(status.failed, noted.failed), self.failed.len())]
    }
}

fn check(is_indexed: bool, happened: &[(u8, u16)], looks: &[usize]) -> Result<(), TestCaseError> {
    let mut world = World::new(is_indexed);
    for (index, event) in happened.iter().enumerate() {
        world.happen(*event);
        for _ in looks.iter().filter(|look| **look == index) {
            world.look(usize::from(event.1 % 11));
            for (said, model) in world.counts() {
                prop_assert!(said <= model, "{said} are counted and {model} ended");
            }
        }
    }
    world.change_job(|job| {
        let spec = job.spec.get_or_insert_default();
        (spec.parallelism, spec.suspend) = (Some(3), Some(false));
    });
    for round in 0.. {
        prop_assert!(round < 200, "no end: {:?}", world.job.status);
        world.hear_everything();
        if !world.look(usize::MAX) && is_finished(&world.job.status.clone().unwrap_or_default()) {
            break;
        }
        world.end_deleted();
        let next = world.pods.real.values().find(|pod| is_active(pod)).and_then(|pod| pod.metadata.name.clone());
        world.end(next, "Succeeded");
    }
    let status = world.job.status.clone().unwrap_or_default();
    prop_assert!(has_condition(&status, "Complete"), "{status:?}");
    for (said, model) in world.counts() {
        prop_assert_eq!(said, model);
    }
    prop_assert!(status.succeeded >= Some(COMPLETIONS), "{:?}", status.succeeded);
    prop_assert_eq!(status.completed_indexes, is_indexed.then(|| "0-4".to_owned()));
    prop_assert!(!world.pods.real.values().any(|pod| is_active(pod) || has_finalizer(pod)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_was_heard_each_pod_is_counted_once((happened, looks) in history(9, 60)) {
        check(false, &happened, &looks)?;
    }

    #[test]
    fn whatever_was_heard_each_index_succeeds_once((happened, looks) in history(9, 60)) {
        check(true, &happened, &looks)?;
    }
}
