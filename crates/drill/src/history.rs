//! Drills that are over: one line of a file each.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::score::Account;

const FILE: &str = "history.jsonl";

/// How a drill ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The scenario.
    pub scenario: String,
    /// The cluster, as a person calls it.
    pub target: String,
    /// When it began.
    pub started: Timestamp,
    /// How it went.
    #[serde(flatten)]
    pub account: Account,
    /// What it was worth.
    pub score: u8,
}

/// Adds one.
pub(crate) fn append(directory: &Path, outcome: &Outcome) -> Result<(), Error> {
    let path = directory.join(FILE);
    let text = format!("{}\n", serde_json::to_string(outcome).unwrap_or_default());
    let written = File::options().create(true).append(true).open(&path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| Error::File { action: "write", path, source })
}

/// All, the first one first; lines that a crash cut off are passed over.
pub(crate) fn read(directory: &Path) -> Result<Vec<Outcome>, Error> {
    let path = directory.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::File { action: "read", path, source }),
    }
}
