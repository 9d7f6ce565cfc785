//! What was changed, and what undoes it: a file for each repair, on the disk before the first change.
//!
//! Invariant: a repair that was cut short can be undone as well as one that came to its end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::{Host, HostError};
use crate::operation::Operation;
use crate::plan::Plan;

/// Why a repair was not made or not undone.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The journal itself.
    #[error("the journal of repairs, {path}, cannot be used; nothing was changed")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A change; what had been done before it was undone.
    #[error("the repair stopped, and what it had done was undone")]
    Execute(#[source] HostError),
    /// An undo; the record stays, so that it can be tried again.
    #[error("not everything was undone; try again when this is mended")]
    Undo(#[source] HostError),
}

/// How a repair stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RecordState {
    /// Begun; if nobody is at it, it was cut short.
    Begun,
    /// Made.
    Made,
    /// Undone.
    Undone,
}

/// A repair as it was written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// When it began.
    pub time: Timestamp,
    /// The cause's id.
    pub id: String,
    /// The cause in a few words.
    pub title: String,
    /// What was done, a line or a diff for each step.
    pub steps: Vec<String>,
    /// What undoes it, in its order.
    pub undo: Vec<Operation>,
    /// How it stands.
    pub state: RecordState,
}

/// The records of a machine.
#[derive(Debug, Clone)]
pub struct Journal {
    directory: PathBuf,
}

impl Journal {
    /// Of a machine.
    pub fn of(host: &Host) -> Self {
        Self { directory: host.state().join("repairs") }
    }

    /// In a directory: of somebody who changes objects and no machine.
    pub fn in_directory(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Makes a repair: writes down what undoes it, then does it.
    ///
    /// # Errors
    /// Where it could not be written down or done; nothing is changed then.
    pub fn make(&self, plan: &Plan, host: &Host, now: Timestamp) -> Result<PathBuf, JournalError> {
        let mut record = Record {
            time: now,
            id: plan.id.to_owned(),
            title: plan.title.to_owned(),
            steps: plan.steps.iter().map(|step| format!("{}\n{}", step.text, step.preview)).collect(),
            // The last step is undone first.
            undo: plan.steps.iter().rev().flat_map(|step| step.undo.iter().cloned()).collect(),
            state: RecordState::Begun,
        };
        let path = self.directory.join(format!("{}-{}.json", now.strftime("%Y%m%dT%H%M%S%.6f"), plan.id));
        write(&path, &record)?;
        for operation in plan.steps.iter().flat_map(|step| &step.operations) {
            if let Err(error) = host.execute(operation) {
                self.undo(&path, &mut record, host)?;
                return Err(JournalError::Execute(error));
            }
        }
        record.state = RecordState::Made;
        write(&path, &record)?;
        Ok(path)
    }

    /// Every record with its file, the newest first. Files that are none are passed over.
    pub fn records(&self) -> Vec<(PathBuf, Record)> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let record = |path: PathBuf| {
            let record = serde_json::from_str(&fs::read_to_string(&path).ok()?).ok()?;
            Some((path, record))
        };
        let mut found: Vec<(PathBuf, Record)> = entries.filter_map(|entry| record(entry.path())).collect();
        found.sort_by(|a, b| b.0.cmp(&a.0));
        found
    }

    /// Undoes a repair.
    ///
    /// # Errors
    /// Where the machine refuses a part of it; the rest is undone, and the record stays.
    pub fn undo(&self, path: &Path, record: &mut Record, host: &Host) -> Result<(), JournalError> {
        let mut failed = None;
        for operation in &record.undo {
            // One that fails does not keep the others from being undone.
            if let Err(error) = host.execute(operation) {
                failed.get_or_insert(error);
            }
        }
        if let Some(error) = failed {
            return Err(JournalError::Undo(error));
        }
        record.state = RecordState::Undone;
        write(path, record)
    }
}

fn write(path: &Path, record: &Record) -> Result<(), JournalError> {
    let written = (|| {
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let beside = path.with_extension("new");
        fs::write(&beside, serde_json::to_vec_pretty(record)?)?;
        fs::File::open(&beside)?.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(directory)?.sync_all()
    })();
    written.map_err(|source| JournalError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PlannedStep;
    use kedge_lifecycle::HostLayout;

    fn plan(operations: Vec<Operation>, undo: Vec<Operation>) -> Plan {
        let step = PlannedStep { text: "do it".to_owned(), preview: "+x".to_owned(), operations, undo };
        Plan { id: "A5", title: "a cause", steps: vec![step] }
    }

    fn file(path: &str) -> (Operation, Operation) {
        let path = path.to_owned();
        (
            Operation::WriteFile { path: path.clone(), content: "x".to_owned(), mode: 0o600 },
            Operation::RemoveFile { path },
        )
    }

    #[test]
    fn what_was_made_is_undone_also_by_another_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let host = Host::new(HostLayout::below(directory.path()));
        let journal = Journal::of(&host);
        let (make, undo) = file("/a");
        journal.make(&plan(vec![make], vec![undo]), &host, Timestamp::UNIX_EPOCH).expect("it is made");
        assert!(directory.path().join("a").exists());
        let (path, mut record) = Journal::of(&host).records().pop().expect("it was written down");
        assert_eq!((record.state, record.id.as_str()), (RecordState::Made, "A5"));
        journal.undo(&path, &mut record, &host).expect("it is undone");
        assert!(!directory.path().join("a").exists());
        assert_eq!(journal.records()[0].1.state, RecordState::Undone);
    }

    #[test]
    fn a_repair_that_fails_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let host = Host::new(HostLayout::below(directory.path()));
        let (make, undo) = file("/a");
        let refused = Operation::SetSetting { name: "none.such".to_owned(), value: "1".to_owned() };
        let made = Journal::of(&host).make(&plan(vec![make, refused], vec![undo]), &host, Timestamp::UNIX_EPOCH);
        assert!(matches!(made, Err(JournalError::Execute(_))), "{made:?}");
        assert!(!directory.path().join("a").exists());
    }

    #[test]
    fn without_a_journal_nothing_is_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(directory.path().join("var/lib")).expect("it is made");
        std::fs::write(directory.path().join("var/lib/kedge"), "a file where the directory should be")
            .expect("it is written");
        let host = Host::new(HostLayout::below(directory.path()));
        let (make, undo) = file("/a");
        let made = Journal::of(&host).make(&plan(vec![make], vec![undo]), &host, Timestamp::UNIX_EPOCH);
        assert!(matches!(made, Err(JournalError::File { .. })), "{made:?}");
        assert!(!directory.path().join("a").exists());
    }
}
