//! A plugin in the chain: which steps it takes part in, and how long they take.

use std::collections::BTreeMap;
use std::time::Instant;

use kedge_meta::ApiStatus;
use parking_lot::Mutex;

use super::{Attributes, Plugin};
use crate::metrics::{Histogram, STEP_SECONDS, header};

const NAME: &str = "apiserver_admission_controller_admission_duration_seconds";
const HELP: &str = "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).";

/// In which steps a plugin does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) admit: bool,
    pub(super) validate: bool,
    pub(super) reserve: bool,
}

impl Steps {
    pub(super) const ADMIT: Self = Self { admit: true, validate: false, reserve: false };
    pub(super) const VALIDATE: Self = Self { admit: false, validate: true, reserve: false };
    pub(super) const BOTH: Self = Self { admit: true, validate: true, reserve: false };
    pub(super) const RESERVE: Self = Self { admit: false, validate: false, reserve: true };
}

/// A plugin that is on.
pub(super) struct Member {
    pub(super) plugin: Box<dyn Plugin>,
    pub(super) steps: Steps,
    pub(super) times: Times,
}

impl Member {
    pub(super) fn new(name: &'static str, steps: Steps, plugin: Box<dyn Plugin>) -> Self {
        Self { plugin, steps, times: Times::new(name) }
    }

    /// What is a part of upstream's defaults or validation; its time is not a plugin's.
    pub(super) fn unnamed(steps: Steps, plugin: Box<dyn Plugin>) -> Self {
        Self::new("", steps, plugin)
    }
}

/// How long something took, by step, operation and whether it refused.
#[derive(Debug)]
pub(super) struct Times {
    name: &'static str,
    times: Mutex<BTreeMap<[&'static str; 3], Histogram>>,
}

impl Times {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, times: Mutex::default() }
    }

    /// Does the work and notes how long that took.
    pub(super) async fn of<T>(
        &self,
        step: &'static str,
        attributes: &Attributes<'_>,
        work: impl Future<Output = Result<T, ApiStatus>>,
    ) -> Result<T, ApiStatus> {
        if self.name.is_empty() {
            return work.await;
        }
        let began = Instant::now();
        let done = work.await;
        let rejected = if done.is_err() { "true" } else { "false" };
        let mut times = self.times.lock();
        let labels = [attributes.operation.as_str(), rejected, step];
        times.entry(labels).or_insert_with(|| Histogram::new(STEP_SECONDS)).observe(began.elapsed().as_secs_f64());
        done
    }
}

/// All that took its time.
pub(super) fn write<'a>(text: &mut String, all: impl Iterator<Item = &'a Times>) {
    header(text, NAME, "histogram", HELP);
    for Times { name, times } in all {
        for ([operation, rejected, step], histogram) in times.lock().iter() {
            let labels = format!("name=\"{name}\",operation=\"{operation}\",rejected=\"{rejected}\",type=\"{step}\"");
            histogram.write(text, NAME, &labels);
        }
    }
}
