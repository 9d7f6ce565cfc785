//! A CronJob after any history: the last time that was due has had its Job, no time had two, no more of them are kept than
//! wanted, and the list of active ones is that of those that run.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, Job, JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

use super::plan::fixtures::{at, cron};
use super::plan::{note_start, plan};
use crate::histories::{Cached, history};
use crate::pods::name_of;

const STEP: i64 = 600;

struct World {
    cron: CronJob,
    seen_cron: CronJob,
    /// The controller wrote the status and does not see that yet.
    status_unseen: bool,
    jobs: Cached<Job>,
    now: i64,
    version: u32,
    made: usize,
    /// Names of Jobs that were there, of which the status said so or which still are there.
    noted: BTreeSet<String>,
}

impl World {
    fn new(policy: &str) -> Self {
        let cron = cron(policy);
        let seen_cron = cron.clone();
        let (jobs, noted) = (Cached::new(), BTreeSet::new());
        Self { cron, seen_cron, status_unseen: false, jobs, now: 30, version: 0, made: 0, noted }
    }

    fn change_cron(&mut self, change: impl FnOnce(&mut CronJob)) {
        change(&mut self.cron);
        self.version += 1;
        self.cron.metadata.resource_version = Some(self.version.to_string());
    }

    fn happen(&mut self, (what, number): (u8, u16)) {
        let one = self.jobs.nth(number);
        match what {
            0 | 1 => self.jobs.hear_one(what == 0, number),
            2 => self.hear_cron(),
            3 => self.end(one, "Complete"),
            4 => self.end(one, "Failed"),
            // Somebody deletes a Job that the status knows of; of others nobody would know that they were.
            5 => drop(one.filter(|name| self.noted.contains(name)).and_then(|name| self.jobs.real.remove(&name))),
            6 => self.change_cron(|cron| cron.spec.suspend = Some(number % 2 == 0)),
            7 => self.now += STEP * i64::from(number % 40),
            _ => self.now += i64::from(number % 900),
        }
    }

    fn hear_cron(&mut self) {
        self.seen_cron = self.cron.clone();
        self.status_unseen = false;
    }

    fn end(&mut self, name: Option<String>, how: &str) {
        let now = Time(at(self.now));
        self.jobs.change(name.as_ref(), |mut job| {
            let status = job.status.get_or_insert_default();
            if status.conditions.is_none() {
                let ending = JobCondition { type_: how.to_owned(), status: "True".to_owned(), ..Default::default() };
                status.conditions = Some(vec![ending]);
                status.completion_time = Some(now).filter(|_| how == "Complete");
            }
            job
        });
    }

    /// One pass, of which only so many effects come about; whether it had anything to do.
    fn look(&mut self, mut effects: usize) -> Result<bool, TestCaseError> {
        if self.status_unseen || !self.jobs.shows_writes() {
            return Ok(true);
        }
        let cron = self.seen_cron.clone();
        let jobs: Vec<Arc<Job>> = self.jobs.seen.values().cloned().map(Arc::new).collect();
        let mut plan = plan(&cron, &jobs, at(self.now));
        let mut may = || {
            let may = effects > 0;
            effects = effects.saturating_sub(1);
            may
        };
        for job in &plan.delete {
            if !may() {
                return Ok(true);
            }
            if self.jobs.ask_to_delete(&**job) {
                self.jobs.real.remove(name_of(&job.metadata));
            }
        }
        let starts = plan.create.is_some();
        if let Some(job) = plan.create.take() {
            if !may() {
                return Ok(true);
            }
            if let Some(created) = self.create(job)? {
                note_start(&mut plan.status, &created);
            }
        }
        let changes = cron.status.clone().unwrap_or_default() != plan.status;
        if changes && may() && cron.metadata.resource_version == self.cron.metadata.resource_version {
            self.noted.extend(plan.status.active.iter().flatten().filter_map(|active| active.name.clone()));
            self.change_cron(|cron| cron.status = Some(plan.status));
            self.status_unseen = true;
        }
        Ok(changes || starts || !plan.delete.is_empty())
    }

    /// The Job as it was created; `None` where there is one of its name.
    fn create(&mut self, mut job: Job) -> Result<Option<Job>, TestCaseError> {
        let name = name_of(&job.metadata);
        if self.jobs.real.contains_key(name) {
            return Ok(None);
        }
        prop_assert!(!self.noted.contains(name), "{name} is started twice");
        let running = self.jobs.real.values().filter(|job| !has_ended(job)).count();
        let may_run = running == 0 || self.cron.spec.concurrency_policy.as_deref() == Some("Allow");
        prop_assert!(may_run, "{name} starts beside {running} others");
        self.made += 1;
        job.metadata.uid = Some(self.made.to_string());
        job.status = Some(JobStatus { start_time: Some(Time(at(self.now))), ..JobStatus::default() });
        self.jobs.create(job.clone());
        Ok(Some(job))
    }

    /// Everything is heard, and passes follow until one has nothing to do.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for round in 0.. {
            prop_assert!(round < 20, "no end: {:?}", self.cron.status);
            self.jobs.hear_everything();
            self.hear_cron();
            if !self.look(usize::MAX)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn kept(&self, how: &str) -> usize {
        let ended = |job: &&Job| {
            let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.into_iter().flatten().any(|condition| condition.type_ == how)
        };
        self.jobs.real.values().filter(ended).count()
    }
}

fn has_ended(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|status| status.conditions.is_some())
}

fn check(policy: &str, happened: &[(u8, u16)], looks: &[usize]) -> Result<(), TestCaseError> {
    let mut world = World::new(policy);
    for (index, event) in happened.iter().enumerate() {
        world.happen(*event);
        for _ in looks.iter().filter(|look| **look == index) {
            world.look(usize::from(event.1 % 5))?;
        }
    }
    world.change_cron(|cron| cron.spec.suspend = None);
    world.now += STEP;
    world.settle()?;
    if policy == "Forbid" {
        // What was running held the last one back.
        let running: Vec<String> = world.jobs.real.keys().cloned().collect();
        running.into_iter().for_each(|name| world.end(Some(name), "Complete"));
        world.settle()?;
    }
    let status = world.cron.status.clone().unwrap_or_default();
    let due = world.now / STEP * STEP;
    prop_assert_eq!(status.last_schedule_time, Some(Time(at(due))));
    let running = world.jobs.real.values().filter(|job| !has_ended(job));
    let running: BTreeSet<String> = running.filter_map(|job| job.metadata.uid.clone()).collect();
    let active: Vec<String> = status.active.into_iter().flatten().filter_map(|active| active.uid).collect();
    prop_assert_eq!(active.len(), running.len(), "each once");
    prop_assert_eq!(active.into_iter().collect::<BTreeSet<_>>(), running);
    prop_assert!(world.kept("Complete") <= 3 && world.kept("Failed") <= 1);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_was_heard_each_time_has_one_job(
        (happened, looks) in history(9, 60), policy in prop::sample::select(vec!["Allow", "Forbid", "Replace"]),
    ) {
        check(policy, &happened, &looks)?;
    }
}
