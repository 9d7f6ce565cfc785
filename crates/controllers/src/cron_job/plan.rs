//! One pass over a CronJob: which Jobs are history, whether one is due, and when the next one is.
//!
//! Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kedge_client::object_reference;

use super::schedule::Schedule;
use crate::owners::controller_reference;
use crate::pods::name_of;

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are reported.
const MANY_MISSED: usize = 100;
/// A timer may fire a little early.
const SLACK: Duration = Duration::from_millis(100);

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announcement {
    pub(crate) is_warning: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What one pass does.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) status: CronJobStatus,
    /// Finished Jobs beyond the limits, and running ones that are replaced.
    pub(crate) delete: Vec<Arc<Job>>,
    pub(crate) create: Option<Job>,
    pub(crate) announce: Vec<Announcement>,
    pub(crate) look_again: Option<Duration>,
}

fn say(is_warning: bool, reason: &'static str, message: String) -> Announcement {
    Announcement { is_warning, reason, message }
}

/// How a finished Job ended.
fn ending(job: &Job) -> Option<&str> {
    let mut conditions = job.status.as_ref()?.conditions.as_ref()?.iter();
    let over = conditions
        .find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True");
    over.map(|condition| condition.type_.as_str())
}

/// Plans a pass over a CronJob and the Jobs that it controls.
pub(crate) fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let mut plan = Plan { status: cron.status.clone().unwrap_or_default(), ..Plan::default() };
    plan_history(cron, jobs, &mut plan);
    plan_active(jobs, &mut plan);
    if cron.metadata.deletion_timestamp.is_none() && cron.spec.suspend != Some(true) {
        plan_start(cron, jobs, now, &mut plan);
    }
    plan.status.active = plan.status.active.take().filter(|active| !active.is_empty());
    plan
}

/// Finished Jobs beyond the limits go, the oldest first.
fn plan_history(cron: &CronJob, jobs: &[Arc<Job>], plan: &mut Plan) {
    let limits = [
        ("Complete", cron.spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", cron.spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    for (kind, limit) in limits {
        let mut finished: Vec<&Arc<Job>> = jobs.iter().filter(|job| ending(job) == Some(kind)).collect();
        finished.sort_by_key(|job| {
            let started = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
            (started.is_none(), started, job.metadata.name.clone())
        });
        let surplus = finished.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        plan.delete.extend(finished.into_iter().take(surplus).cloned());
    }
}

/// The time of the schedule that a Job was started for; `None` of those that people started.
pub(crate) fn scheduled_at(job: &Job) -> Option<Time> {
    job.metadata.annotations.as_ref()?.get(SCHEDULED_AT)?.parse().ok().map(Time)
}

/// Brings the list of active Jobs in step with the Jobs there are.
fn plan_active(jobs: &[Arc<Job>], plan: &mut Plan) {
    let mut active = plan.status.active.take().unwrap_or_default();
    // Its time was had by every Job that is there, also where the status could not be written then.
    plan.status.last_schedule_time =
        plan.status.last_schedule_time.take().max(jobs.iter().filter_map(|job| scheduled_at(job)).max());
    for job in jobs {
        let name = name_of(&job.metadata);
        let position = active.iter().position(|known| known.uid == job.metadata.uid);
        match (ending(job), position) {
            (None, None) if scheduled_at(job).is_some() => active.push(object_reference(&**job)),
            (None, None) => {
                let text = format!("Saw a job that the controller did not create or forgot: {name}");
                plan.announce.push(say(true, "UnexpectedJob", text));
            }
            (Some(how), Some(position)) => {
                active.remove(position);
                let text = format!("Saw completed job: {name}, condition: {how}");
                plan.announce.push(say(false, "SawCompletedJob", text));
            }
            (None, Some(_)) | (Some(_), None) => {}
        }
        if ending(job) == Some("Complete") {
            let ended = job.status.as_ref().and_then(|status| status.completion_time.clone());
            if ended > plan.status.last_successful_time {
                plan.status.last_successful_time = ended;
            }
        }
    }
    active.retain(|known| {
        let is_there = jobs.iter().any(|job| job.metadata.uid == known.uid);
        if !is_there {
            let text = format!("Active job went missing: {}", known.name.as_deref().unwrap_or_default());
            plan.announce.push(say(false, "MissingJob", text));
        }
        is_there
    });
    plan.status.active = Some(active);
}

fn plan_start(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp, plan: &mut Plan) {
    let zone = match cron.spec.time_zone.as_deref().map(TimeZone::get) {
        None => TimeZone::UTC,
        Some(Ok(zone)) => zone,
        Some(Err(_)) => {
            let name = cron.spec.time_zone.as_deref().unwrap_or_default();
            let text = format!("invalid timeZone: \"{name}\": unknown time zone {name}");
            plan.announce.push(say(true, "UnknownTimeZone", text));
            return;
        }
    };
    let schedule = match Schedule::parse(&cron.spec.schedule) {
        Ok(schedule) => schedule,
        Err(error) => {
            let text = format!("unparseable schedule: \"{}\" : {error}", cron.spec.schedule);
            plan.announce.push(say(true, "UnparseableSchedule", text));
            return;
        }
    };
    let Some(next) = schedule.next(now, &zone) else {
        // The 31st of February.
        let why = "time difference between two schedules is less than 1 second";
        let text = format!("invalid schedule: {} : {why}", cron.spec.schedule);
        plan.announce.push(say(true, "InvalidSchedule", text));
        return;
    };
    plan.look_again = Duration::try_from(next.duration_since(now)).ok().map(|left| left + SLACK);
    let (due, missed) = due(cron, &schedule, &zone, now);
    if missed > MANY_MISSED {
        let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.announce.push(say(true, "TooManyMissedTimes", text.to_owned()));
    }
    let Some(due) = due else { return };
    let deadline = cron.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if deadline.is_some_and(|deadline| now.duration_since(due) > deadline) {
        let text = format!("Missed scheduled time to start a job: {}", due.strftime("%a, %d %b %Y %H:%M:%S +0000"));
        plan.announce.push(say(true, "MissSchedule", text));
        return;
    }
    let job = new_job(cron, due, &zone);
    let name = name_of(&job.metadata).to_owned();
    let active: Vec<ObjectReference> = plan.status.active.clone().unwrap_or_default();
    let is_started = active.iter().any(|known| known.name.as_deref() == Some(&name))
        || jobs.iter().any(|known| name_of(&known.metadata) == name);
    if is_started {
        return;
    }
    match cron.spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.announce.push(say(false, "JobAlreadyActive", text.to_owned()));
            return;
        }
        Some("Replace") => {
            let running = jobs.iter().filter(|job| active.iter().any(|known| known.uid == job.metadata.uid));
            plan.delete.extend(running.cloned());
            plan.status.active = None;
        }
        _ => {}
    }
    plan.create = Some(job);
}

/// The latest time that was missed, and how many were.
fn due(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> (Option<Timestamp>, usize) {
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let since = last.or(cron.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
    let window = cron.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    let earliest = window.and_then(|window| now.checked_sub(window).ok());
    let mut at = since.max(earliest.unwrap_or(since));
    let (mut due, mut missed) = (None, 0);
    while let Some(next) = schedule.next(at, zone).filter(|next| *next <= now) {
        (due, missed, at) = (Some(next), missed + 1, next);
        if missed > 10 * MANY_MISSED {
            // Far behind: the times just before now are enough.
            let skip = now.checked_sub(SignedDuration::from_hours(24 * 32)).unwrap_or(at);
            let skipped = at.max(skip);
            missed = if skipped > at { MANY_MISSED + 1 } else { missed };
            at = skipped;
        }
    }
    (due, missed)
}

fn new_job(cron: &CronJob, due: Timestamp, zone: &TimeZone) -> Job {
    let template = &cron.spec.job_template;
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    let local = due.to_zoned(zone.clone());
    let stamp = match cron.spec.time_zone {
        Some(_) => local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        None => kedge_meta::format_time(due),
    };
    annotations.insert(SCHEDULED_AT.to_owned(), stamp);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", name_of(&cron.metadata), due.as_second() / 60)),
            namespace: cron.metadata.namespace.clone(),
            labels: metadata.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Notes a Job that was started for the time in its annotation.
pub(crate) fn note_start(status: &mut CronJobStatus, job: &Job) {
    status
        .active
        .get_or_insert_default()
        .push(ObjectReference { resource_version: job.metadata.resource_version.clone(), ..object_reference(job) });
    status.last_schedule_time = scheduled_at(job).or(status.last_schedule_time.take());
}

#[cfg(test)]
pub(super) mod fixtures {
    //! CronJobs as tests need them.

    use k8s_openapi::api::batch::v1::CronJobSpec;

    use super::*;

    /// So many seconds after the epoch.
    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// `tick`, for every ten minutes, of second 30.
    pub(crate) fn cron(policy: &str) -> CronJob {
        let mut cron = CronJob {
            spec: CronJobSpec {
                schedule: "*/10 * * * *".to_owned(),
                concurrency_policy: Some(policy.to_owned()),
                ..CronJobSpec::default()
            },
            ..CronJob::default()
        };
        cron.metadata.name = Some("tick".to_owned());
        cron.metadata.uid = Some("tick".to_owned());
        cron.metadata.creation_timestamp = Some(Time(at(30)));
        cron
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::{at, cron};
    use super::*;
    use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};

    fn job(name: &str, ending: Option<&str>, started: i64) -> Arc<Job> {
        let mut job = Job::default();
        job.metadata.name = Some(name.to_owned());
        job.metadata.uid = Some(name.to_owned());
        let conditions = ending.map(|type_| {
            vec![JobCondition { type_: type_.to_owned(), status: "True".to_owned(), ..JobCondition::default() }]
        });
        job.status = Some(JobStatus { conditions, start_time: Some(Time(at(started))), ..JobStatus::default() });
        Arc::new(job)
    }

    fn show(plan: &Plan) -> String {
        let mut parts: Vec<String> = plan.announce.iter().map(|said| said.reason.to_owned()).collect();
        parts.extend(plan.delete.iter().map(|job| format!("delete {}", name_of(&job.metadata))));
        parts.extend(plan.create.iter().map(|job| format!("create {}", name_of(&job.metadata))));
        parts.join(", ")
    }

    #[test]
    fn a_job_starts_when_it_is_due() {
        let check = |cron: &CronJob, now: i64, expected: &str, next: Option<u64>| {
            let plan = plan(cron, &[], at(now));
            assert_eq!(show(&plan), expected, "at {now}");
            assert_eq!(plan.look_again.map(|wait| wait.as_secs()), next);
        };
        check(&cron("Allow"), 599, "", Some(1));
        check(&cron("Allow"), 600, "create tick-10", Some(600));
        // Of several missed times only the last one counts.
        check(&cron("Allow"), 1900, "create tick-30", Some(500));
        let mut late = cron("Allow");
        late.spec.starting_deadline_seconds = Some(60);
        check(&late, 1900, "", Some(500));
        check(&late, 1830, "create tick-30", Some(570));
        let mut suspended = cron("Allow");
        suspended.spec.suspend = Some(true);
        check(&suspended, 600, "", None);
        let mut broken = cron("Allow");
        broken.spec.schedule = "x".to_owned();
        check(&broken, 600, "UnparseableSchedule", None);
        broken = cron("Allow");
        broken.spec.time_zone = Some("Nowhere/Land".to_owned());
        check(&broken, 600, "UnknownTimeZone", None);
        broken = cron("Allow");
        broken.spec.schedule = "59 23 31 2 *".to_owned();
        check(&broken, 600, "InvalidSchedule", None);
        check(&cron("Allow"), 600 * 200, "TooManyMissedTimes, create tick-2000", Some(600));
    }

    #[test]
    fn running_jobs_are_kept_replaced_or_joined() {
        let running = job("old", None, 0);
        let check = |policy: &str, expected: &str| {
            let mut cron = cron(policy);
            let active = vec![object_reference(&*running)];
            cron.status = Some(CronJobStatus { active: Some(active), ..CronJobStatus::default() });
            assert_eq!(show(&plan(&cron, std::slice::from_ref(&running), at(600))), expected);
        };
        check("Allow", "create tick-10");
        check("Forbid", "JobAlreadyActive");
        check("Replace", "delete old, create tick-10");
    }

    #[test]
    fn finished_jobs_leave_the_list_and_the_oldest_go() {
        let mut cron = cron("Allow");
        let jobs = [
            job("s1", Some("Complete"), 1),
            job("s4", Some("Complete"), 4),
            job("s2", Some("Complete"), 2),
            job("s3", Some("Complete"), 3),
            job("f1", Some("Failed"), 1),
            job("f2", Some("Failed"), 2),
        ];
        let active = vec![object_reference(&*jobs[1]), ObjectReference::default()];
        cron.status = Some(CronJobStatus { active: Some(active), ..CronJobStatus::default() });
        let plan = plan(&cron, &jobs, at(60));
        assert_eq!(show(&plan), "SawCompletedJob, MissingJob, delete s1, delete f1");
        assert_eq!(plan.status.active, None);
    }
}
