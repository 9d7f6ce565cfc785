//! Values that are made of files, and made again when the files have changed; and the bare question whether they have.
//!
//! Files are looked at when somebody asks, at most once a second. Invariant: what cannot be used is said, and what worked
//! last goes on.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::PkiError;

const LOOK_EVERY: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(1) };

/// What changes when a file is written or replaced: its time, its length, its number; `None` where it is not there.
type Mark = Option<(SystemTime, u64, u64)>;

/// Some files, and how they were when somebody last asked.
#[derive(Debug)]
pub struct FileMarks {
    files: Vec<PathBuf>,
    marks: Vec<Mark>,
}

impl FileMarks {
    /// The files as they are now.
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self { marks: marks(&files), files }
    }

    /// Whether any has changed since this was last asked.
    pub fn have_changed(&mut self) -> bool {
        let marks = marks(&self.files);
        std::mem::replace(&mut self.marks, marks) != self.marks
    }
}

fn marks(files: &[PathBuf]) -> Vec<Mark> {
    files.iter().map(|file| mark(file)).collect()
}

/// Something that is made of files, and made again when they have changed.
pub(crate) struct Followed<T> {
    files: Vec<PathBuf>,
    make: Box<dyn Fn() -> Result<T, PkiError> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    made: Option<T>,
    marks: Vec<Mark>,
    looked: Option<Instant>,
}

impl<T: Clone> Followed<T> {
    pub(crate) fn new(files: Vec<PathBuf>, make: impl Fn() -> Result<T, PkiError> + Send + Sync + 'static) -> Self {
        let state = Mutex::new(State { made: None, marks: Vec::new(), looked: None });
        Self { files, make: Box::new(make), state }
    }

    pub(crate) fn current(&self) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) && state.made.is_some() {
            return state.made.clone();
        }
        state.looked = Some(Instant::now());
        let marks = marks(&self.files);
        if marks != state.marks || state.made.is_none() {
            match (self.make)() {
                Ok(made) => state.made = Some(made),
                Err(error) => tracing::warn!(%error, "TLS files cannot be used; what was there before goes on"),
            }
            state.marks = marks;
        }
        state.made.clone()
    }
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Followed").field(&self.files).finish()
    }
}

fn mark(file: &Path) -> Mark {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::read;

    #[test]
    fn what_files_make_follows_them_and_outlives_what_is_broken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let followed = Followed::new(vec![path.clone()], {
            let path = path.clone();
            move || match read(&path)?.unwrap_or_default().as_str() {
                "" => Err(PkiError::Tls("empty".to_owned())),
                text => Ok(text.to_owned()),
            }
        });
        assert_eq!(followed.current(), None);
        std::fs::write(&path, "one").unwrap();
        assert_eq!(followed.current().as_deref(), Some("one"));
        std::fs::write(&path, "second").unwrap();
        assert_eq!(followed.current().as_deref(), Some("second"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(followed.current().as_deref(), Some("second"));
    }

    #[test]
    fn a_change_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut marks = FileMarks::new(vec![path.clone()]);
        assert!(!marks.have_changed());
        std::fs::write(&path, "one").unwrap();
        assert!(marks.have_changed() && !marks.have_changed());
        std::fs::remove_file(&path).unwrap();
        assert!(marks.have_changed());
    }
}
