//! State that survives a restart: one JSON file, replaced as a whole.
//!
//! Invariant: a reader sees the old or the new state, never a part of one.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file with a state.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    path: PathBuf,
}

impl Checkpoint {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The kept state; the empty one where there is none or it can't be read, which is said.
    pub(crate) fn load<T: DeserializeOwned + Default>(&self) -> T {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return T::default(),
            Err(error) => return self.unreadable(&error),
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| self.unreadable(&error))
    }

    fn unreadable<T: Default>(&self, error: &dyn std::error::Error) -> T {
        tracing::error!(path = %self.path.display(), %error, "the kept state of devices can't be read; it starts anew");
        T::default()
    }

    pub(crate) fn save<T: Serialize>(&self, state: &T) -> Result<(), String> {
        let written = serde_json::to_vec(state).map_err(std::io::Error::from).and_then(|text| {
            let new = self.path.with_extension("new");
            write_synced(&new, &text)?;
            std::fs::rename(&new, &self.path)
        });
        written.map_err(|error| format!("could not write {}: {error}", self.path.display()))
    }
}

fn write_synced(path: &Path, text: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = std::fs::File::create(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/state.json");
        let checkpoint = Checkpoint::new(path.clone());
        assert_eq!(checkpoint.load::<Vec<String>>(), Vec::<String>::new());
        checkpoint.save(&vec!["a"]).unwrap();
        checkpoint.save(&vec!["a", "b"]).unwrap();
        assert_eq!(checkpoint.load::<Vec<String>>(), ["a", "b"]);
        std::fs::write(path, "{").unwrap();
        assert_eq!(checkpoint.load::<Vec<String>>(), Vec::<String>::new());
    }
}
