//! What this crate has made on the machine, so that teardown removes that and nothing else. Routes carry a protocol
//! number of ours and the tables our name; they need no record.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cni::write_atomically;
use crate::config::Error;

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Record {
    /// The bridge, if it was not there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bridge: Option<String>,
    /// The CNI configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cni_file: Option<PathBuf>,
    /// host-local's folder for our network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ipam_dir: Option<PathBuf>,
    /// The MTU that pods got last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
}

impl Record {
    fn file(state_dir: &Path) -> PathBuf {
        state_dir.join("network.json")
    }

    pub(crate) fn load(state_dir: &Path) -> Result<Self, Error> {
        let file = Self::file(state_dir);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(Error::File { file, action: "read", source }),
        };
        serde_json::from_slice(&text).map_err(|error| Error::File { file, action: "read", source: error.into() })
    }

    /// Changes the record on disk before the change on the machine, so that a crash between leaves too much in the
    /// record rather than too little.
    pub(crate) fn update(state_dir: &Path, change: impl FnOnce(&mut Self)) -> Result<(), Error> {
        let old = Self::load(state_dir)?;
        let mut new = old.clone();
        change(&mut new);
        if new == old {
            return Ok(());
        }
        let file = Self::file(state_dir);
        let text = serde_json::to_string_pretty(&new).expect("a record is JSON");
        write_atomically(&file, &text).map_err(|source| Error::File { file, action: "written", source })
    }

    pub(crate) fn remove(state_dir: &Path) -> Result<(), Error> {
        remove_file(&Self::file(state_dir))
    }
}

/// Removes a file that may be gone already.
pub(crate) fn remove_file(file: &Path) -> Result<(), Error> {
    match fs::remove_file(file) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::File { file: file.to_owned(), action: "removed", source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_survives() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        assert_eq!(Record::load(&state).unwrap(), Record::default());
        Record::update(&state, |record| record.bridge = Some("cni0".to_owned())).unwrap();
        assert_eq!(Record::load(&state).unwrap().bridge.as_deref(), Some("cni0"));
        Record::remove(&state).unwrap();
        Record::remove(&state).unwrap();
        assert_eq!(Record::load(&state).unwrap(), Record::default());
    }
}
