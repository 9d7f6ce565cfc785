//! The kinds of the batch group.

mod cron_job;
mod job;
mod job_spec;
mod schedule;

use crate::generic::Generic;
use crate::strategy::Strategy;

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "cronjobs" => &cron_job::CronJob,
        "jobs" => &job::Job,
        _ => &Generic::PLAIN,
    }
}
