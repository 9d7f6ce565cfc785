//! A drill from its start to its end: break, look, help, judge, bring back.
//!
//! Invariant: one drill at a time for a state directory; whatever was begun is taken back by `stop`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use crate::breaking::Step;
use crate::error::Error;
use crate::finding;
use crate::history::{self, Outcome};
use crate::journal::{Journal, Run};
use crate::observe::{self, describe};
use crate::scenario::Scenario;
use crate::score::{Account, score};
use crate::target::Target;
use crate::undo;

const HEALTHY_PATIENCE: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(500);

/// Where drills are kept, and one at a time is done.
pub struct Drill {
    directory: PathBuf,
    journal: Journal,
    image: Option<String>,
    _lock: File,
}

/// What a start would do.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The scenario with its variables replaced.
    pub scenario: Scenario,
    /// The cluster, as a person calls it.
    pub target: String,
    /// Each step in one line.
    pub steps: Vec<String>,
}

/// What was broken.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// The run.
    pub id: String,
    /// Seconds until the symptoms were seen.
    pub symptoms_after: f64,
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// Whether the named cause is the true one; absent where none was named.
    pub right: Option<bool>,
    /// What is not as it should be; empty where all is repaired.
    pub missing: Vec<String>,
    /// Points, once it is repaired.
    pub score: Option<u8>,
}

/// How a drill ended.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The true cause.
    pub cause: String,
}

impl Drill {
    /// Opens the directory, which is made where it is missing, and keeps others out. Pods of drills run `image`, which has
    /// a shell, where one is named.
    pub fn open(directory: &Path, image: Option<String>) -> Result<Self, Error> {
        let wrap = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { action, path, source }
        };
        std::fs::create_dir_all(directory).map_err(wrap("make", directory))?;
        let path = directory.join("lock");
        let lock = File::create(&path).map_err(wrap("make", &path))?;
        if lock.try_lock().is_err() {
            return Err(Error::Refused(format!("another `kedge drill` is at work in {}", directory.display())));
        }
        Ok(Self { directory: directory.to_owned(), journal: Journal::at(directory), image, _lock: lock })
    }

    /// The drill that is going on.
    pub fn active(&self) -> Result<Option<Run>, Error> {
        self.journal.run()
    }

    /// Drills that are over.
    pub fn history(&self) -> Result<Vec<Outcome>, Error> {
        history::read(&self.directory)
    }

    /// What a start would do. Nothing is changed.
    pub async fn plan(&self, scenario: &Scenario, target: &Target) -> Result<Plan, Error> {
        let variables = target.variables(self.image.as_deref()).await?;
        if let Err(why) = target.suits(&scenario.place, &variables, self.image.is_some()) {
            return Err(Error::Refused(format!("{} cannot be done on {}: {why}", scenario.id, target.told())));
        }
        let scenario = scenario.with(&variables)?;
        let steps = scenario.steps.iter().map(crate::action::Action::told).collect();
        Ok(Plan { scenario, target: target.told(), steps })
    }

    /// Breaks the cluster, and waits until it shows.
    pub async fn start(&self, scenario: &Scenario, target: &Target) -> Result<Started, Error> {
        if let Some(run) = self.active()? {
            let id = run.scenario.id;
            return Err(Error::Refused(format!("{id} is going on; end it with `kedge drill stop`")));
        }
        let plan = self.plan(scenario, target).await?;
        let machines = target.machines();
        // What is broken already teaches nothing, and would not be brought back.
        observe::wait(&plan.scenario.repaired, target, &machines, HEALTHY_PATIENCE).await?;
        let mut before = Vec::new();
        for (look, _) in plan.scenario.looks() {
            before.extend(finding::diagnose(&look, target, &machines)?);
        }
        let started = Timestamp::now();
        let mut run = Run {
            id: run_id(&plan.scenario.id, started.as_second()),
            scenario: plan.scenario,
            target: target.clone(),
            started,
            seen: None,
            named: None,
            repaired: None,
            hints: 0,
            wrong: 0,
            before: before.into_iter().map(|named| named.key).collect(),
            hosts: target.running()?,
        };
        self.journal.write(&run)?;
        self.do_steps(&run).await?;
        let begun = Instant::now();
        let patience = Duration::from_secs(run.scenario.within);
        observe::wait(&run.scenario.symptoms, target, &machines, patience).await?;
        run.seen = Some(Timestamp::now());
        self.journal.write(&run)?;
        Ok(Started { id: run.id, symptoms_after: begun.elapsed().as_secs_f64() })
    }

    async fn do_steps(&self, run: &Run) -> Result<(), Error> {
        let machines = run.target.machines();
        for (number, action) in run.scenario.steps.iter().enumerate() {
            let step = Step { number, run: &run.id, action, target: &run.target, machines: &machines };
            let undo = step.plan_undo().await?;
            self.journal.note(number, &undo)?;
            step.perform().await?;
        }
        Ok(())
    }

    /// The next hint; `None` where there is no more.
    pub fn hint(&self) -> Result<Option<String>, Error> {
        let mut run = self.needed()?;
        let Some(hint) = run.scenario.hints.get(run.hints).cloned() else { return Ok(None) };
        run.hints += 1;
        self.journal.write(&run)?;
        Ok(Some(hint))
    }

    /// Judges a named cause, and looks whether all is repaired.
    pub async fn check(&self, named: Option<&str>) -> Result<Checked, Error> {
        let mut run = self.needed()?;
        let is_true = |named: &str| run.scenario.causes().iter().any(|cause| named.eq_ignore_ascii_case(cause));
        let right = named.map(is_true);
        match right {
            Some(true) if run.named.is_none() => run.named = Some(Timestamp::now()),
            Some(false) => run.wrong += 1,
            _ => {}
        }
        self.journal.write(&run)?;
        let machines = run.target.machines();
        let mut missing = Vec::new();
        for probe in &run.scenario.repaired {
            if let Err(instead) = observe::look(probe, &run.target, &machines).await {
                missing.push(format!("{}; instead: {instead}", describe(probe)));
            }
        }
        if missing.is_empty() && run.repaired.is_none() {
            run.repaired = Some(Timestamp::now());
            self.journal.write(&run)?;
        }
        let score = missing.is_empty().then(|| score(&account(&run), run.scenario.par));
        Ok(Checked { right, missing, score })
    }

    /// Takes every step back, waits until all is well, and forgets the run.
    pub async fn stop(&self) -> Result<Stopped, Error> {
        let run = self.needed()?;
        self.take_back(&run).await?;
        let machines = run.target.machines();
        observe::wait(&run.scenario.repaired, &run.target, &machines, HEALTHY_PATIENCE).await?;
        for on in run.scenario.steps.iter().filter_map(crate::action::Action::machine) {
            // A machine that cannot be asked keeps its copies; they do no harm.
            let _ = machines.run(
                on,
                "rm -rf \"/var/lib/kedge-drill/$1\"; rmdir /var/lib/kedge-drill 2>/dev/null; true",
                &[&run.id],
            );
        }
        let account = account(&run);
        let outcome = Outcome {
            scenario: run.scenario.id.clone(),
            target: run.target.told(),
            started: run.started,
            account,
            score: score(&account, run.scenario.par),
        };
        history::append(&self.directory, &outcome)?;
        self.journal.remove()?;
        Ok(Stopped { outcome, cause: run.scenario.causes().join(" and ") })
    }

    /// Tries all that is left again and again, as one may need what another brings back.
    async fn take_back(&self, run: &Run) -> Result<(), Error> {
        let machines = run.target.machines();
        let deadline = Instant::now() + STOP_PATIENCE;
        loop {
            let mut left: Vec<String> = Vec::new();
            for host in &run.hosts {
                left.extend(run.target.start_node(host).err().map(|error| format!("{host}: {}", told(&error))));
            }
            for (number, steps) in self.journal.left()? {
                let mut failed = Vec::new();
                for step in &steps {
                    let error = undo::undo(step, &run.target, &machines).await.err();
                    failed.extend(error.map(|error| format!("step {}: {}", number + 1, told(&error))));
                }
                if failed.is_empty() {
                    self.journal.note_undone(number)?;
                }
                left.extend(failed);
            }
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::NotUndone { left });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(crate) fn needed(&self) -> Result<Run, Error> {
        self.active()?.ok_or_else(|| Error::Refused("no drill is going on; see `kedge drill list`".to_owned()))
    }
}

/// The name of a run: objects carry it as the value of a label, which has at most 63 characters.
fn run_id(scenario: &str, second: i64) -> String {
    let short: String = scenario.replace('+', ".").chars().take(48).collect();
    format!("{short}-{second}")
}

fn account(run: &Run) -> Account {
    let since = |time: Option<Timestamp>| {
        let time = time?;
        u64::try_from(time.as_second() - run.started.as_second()).ok()
    };
    Account { detect: since(run.named), repair: since(run.repaired), hints: run.hints, wrong: run.wrong }
}

/// An error with its causes, in one line.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_run_is_the_value_of_a_label() {
        assert_eq!(run_id("quota+no-room", 1_700_000_000), "quota.no-room-1700000000");
        assert!(run_id(&"a".repeat(100), 1_700_000_000).len() <= 63);
    }
}
