//! The run that is going on, and how each of its steps is taken back: on the disk, synced, before anything is done.
//!
//! Invariant: a crash at any point leaves either no run, or one whose journal undoes at least all that was done.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::scenario::Scenario;
use crate::target::Target;
use crate::undo::Undo;

const RUN: &str = "run.json";
const STEPS: &str = "journal.jsonl";

/// A drill that is going on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its name: the scenario's with the time.
    pub id: String,
    /// The scenario, with its variables replaced.
    pub scenario: Scenario,
    /// The cluster.
    pub target: Target,
    /// When it was begun.
    pub started: Timestamp,
    /// When the symptoms were seen.
    #[serde(default)]
    pub seen: Option<Timestamp>,
    /// When the cause was named.
    #[serde(default)]
    pub named: Option<Timestamp>,
    /// When it was found repaired.
    #[serde(default)]
    pub repaired: Option<Timestamp>,
    /// Hints that were taken.
    #[serde(default)]
    pub hints: usize,
    /// Causes that were named wrongly.
    #[serde(default)]
    pub wrong: usize,
    /// Causes that the doctor named before anything was broken.
    #[serde(default)]
    pub before: Vec<String>,
    /// Test hosts that were on.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    /// A step is about to be done, and this takes it back.
    Step { number: usize, undo: Vec<Undo> },
    /// A step was taken back.
    Undone { number: usize },
}

/// The files of one run.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    directory: PathBuf,
}

impl Journal {
    pub(crate) fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The run that is going on.
    pub(crate) fn run(&self) -> Result<Option<Run>, Error> {
        let path = self.directory.join(RUN);
        match fs::read(&path) {
            Ok(bytes) => {
                let run = serde_json::from_slice(&bytes);
                run.map(Some).map_err(|error| Error::Malformed { path, why: error.to_string() })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { action: "read", path, source }),
        }
    }

    /// Writes the run, whole or not at all.
    pub(crate) fn write(&self, run: &Run) -> Result<(), Error> {
        let path = self.directory.join(RUN);
        let text = serde_json::to_vec_pretty(run).unwrap_or_default();
        write_whole(&path, &text).map_err(|source| Error::File { action: "write", path, source })
    }

    /// Notes how a step is taken back.
    pub(crate) fn note(&self, number: usize, undo: &[Undo]) -> Result<(), Error> {
        self.append(&Line::Step { number, undo: undo.to_vec() })
    }

    /// Notes that a step was taken back.
    pub(crate) fn note_undone(&self, number: usize) -> Result<(), Error> {
        self.append(&Line::Undone { number })
    }

    /// What is not taken back, the last step first.
    pub(crate) fn left(&self) -> Result<Vec<(usize, Vec<Undo>)>, Error> {
        let path = self.directory.join(STEPS);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::File { action: "read", path, source }),
        };
        Ok(left(&text))
    }

    /// Forgets the run.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        for name in [STEPS, RUN] {
            let path = self.directory.join(name);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::File { action: "remove", path, source }),
            }
        }
        Ok(())
    }

    fn append(&self, line: &Line) -> Result<(), Error> {
        let path = self.directory.join(STEPS);
        let text = format!("{}\n", serde_json::to_string(line).unwrap_or_default());
        let written = File::options().create(true).append(true).open(&path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            File::open(&self.directory)?.sync_all()
        });
        written.map_err(|source| Error::File { action: "write", path, source })
    }
}

/// A line that was cut off was never followed by its step.
fn left(text: &str) -> Vec<(usize, Vec<Undo>)> {
    let mut steps: Vec<(usize, Vec<Undo>)> = Vec::new();
    for line in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
        match line {
            Line::Step { number, undo } => steps.push((number, undo)),
            Line::Undone { number } => steps.retain(|(step, _)| *step != number),
        }
    }
    steps.reverse();
    steps
}

/// Writes a file, synced, whole or not at all.
pub(crate) fn write_whole(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_known_after_a_crash_in_a_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let journal = Journal::at(directory.path());
        let step = |on: &str| vec![Undo::PlugIn { on: on.to_owned() }];
        assert_eq!(journal.left().expect("it is read"), []);
        for (number, on) in ["a", "b", "c"].into_iter().enumerate() {
            journal.note(number, &step(on)).expect("it is written");
        }
        journal.note_undone(1).expect("it is written");
        let path = directory.path().join(STEPS);
        let torn = format!("{}{}", fs::read_to_string(&path).expect("it is read"), "{\"step\":{\"number\":3,\"un");
        fs::write(&path, torn).expect("it is written");
        assert_eq!(journal.left().expect("it is read"), [(2, step("c")), (0, step("a"))]);
        journal.remove().expect("it is removed");
        assert!(journal.run().expect("it is read").is_none());
    }
}
