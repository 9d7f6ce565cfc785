//! The directories of volumes, and the notes about those that are being made.
//!
//! A note (`.provisioning/<volume>`) is written before a directory and removed once the volume's object is known to
//! exist: a note without an object and without a claim marks a directory that nobody will ever use. Invariant: only direct
//! children of the root are made or removed, and none whose name does not begin with that of its volume.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::ReconcileError;

const NOTES: &str = ".provisioning";
/// Pods run as anybody.
const MODE: u32 = 0o777;
/// The longest name of a file.
const NAME_MAX: usize = 255;

/// Where volumes lie.
#[derive(Debug, Clone)]
pub(crate) struct Directories {
    root: PathBuf,
}

impl Directories {
    /// Makes the root.
    pub(crate) fn open(root: &Path) -> Result<Self, ReconcileError> {
        let directories = Self { root: root.to_owned() };
        let notes = directories.root.join(NOTES);
        std::fs::create_dir_all(&notes).map_err(|source| failed("cannot make", &notes, source))?;
        Ok(directories)
    }

    /// The directory of a volume: its name, and what tells a person whose it is.
    pub(crate) fn path(&self, volume: &str, namespace: &str, claim: &str) -> PathBuf {
        let mut name = format!("{volume}_{namespace}_{claim}");
        // Names of objects are ASCII.
        name.truncate(NAME_MAX);
        self.root.join(name)
    }

    /// Makes a volume's directory, which may be there already. What is written before a power cut is there after it.
    pub(crate) fn make(&self, volume: &str, path: &Path) -> Result<(), ReconcileError> {
        let note = self.root.join(NOTES).join(volume);
        let text = path.file_name().unwrap_or_default().as_encoded_bytes();
        std::fs::write(&note, text).map_err(|source| failed("cannot write", &note, source))?;
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("cannot make", path, error));
            }
            _ => {}
        }
        let finish = || {
            std::fs::set_permissions(path, Permissions::from_mode(MODE))?;
            std::fs::File::open(&self.root)?.sync_all()
        };
        finish().map_err(|source| failed("cannot make", path, source))
    }

    /// A volume's object exists: its directory is not half made any more.
    pub(crate) fn made(&self, volume: &str) -> Result<(), ReconcileError> {
        let note = self.root.join(NOTES).join(volume);
        gone(std::fs::remove_file(&note)).map_err(|source| failed("cannot remove", &note, source))
    }

    /// The volumes whose directories are half made.
    pub(crate) fn half_made(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(NOTES)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Removes a directory that was half made for a volume that will never be.
    pub(crate) fn abandon(&self, volume: &str) -> Result<(), ReconcileError> {
        let note = self.root.join(NOTES).join(volume);
        let name = std::fs::read_to_string(&note).unwrap_or_default();
        if !name.is_empty() {
            self.remove(volume, &self.root.join(name))?;
        }
        self.made(volume)
    }

    /// Removes a volume's directory with all that is in it; one that is gone already counts as removed.
    pub(crate) fn remove(&self, volume: &str, path: &Path) -> Result<(), ReconcileError> {
        if !self.is_own(volume, path) {
            let text =
                format!("{} is no directory of the volume {volume} under {}", path.display(), self.root.display());
            return Err(ReconcileError::Unsupported(text));
        }
        gone(std::fs::remove_dir_all(path)).map_err(|source| failed("cannot remove", path, source))
    }

    fn is_own(&self, volume: &str, path: &Path) -> bool {
        let name = path.strip_prefix(&self.root).ok().and_then(Path::to_str).unwrap_or_default();
        let rest = name.strip_prefix(volume).unwrap_or_default();
        !volume.is_empty() && rest.starts_with('_') && !name.contains('/')
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> ReconcileError {
    ReconcileError::Directory { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_volumes_own_directory_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let directories = Directories::open(&dir.path().join("volumes")).unwrap();
        let outside = dir.path().join("pvc-1_d_c");
        let other = directories.path("pvc-2", "d", "c");
        for path in [&outside, &other] {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("file"), "kept").unwrap();
        }
        let climbing = directories.root.join("pvc-1_x").join("..").join("..").join("pvc-1_d_c");
        let below = other.join("pvc-1_d_c");
        for path in [&outside, &other, &climbing, &below, &directories.root, &PathBuf::from("/")] {
            let error = directories.remove("pvc-1", path).unwrap_err();
            assert!(matches!(error, ReconcileError::Unsupported(_)), "{path:?}: {error}");
        }
        assert!(directories.remove("", &other).is_err());
        // A link is removed, and not what it leads to.
        let link = directories.path("pvc-1", "d", "c");
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let _ = directories.remove("pvc-1", &link);
        assert!(outside.join("file").exists() && other.join("file").exists());
    }

    #[test]
    fn directories_are_open_to_everybody_and_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let directories = Directories::open(dir.path()).unwrap();
        let path = directories.path("pvc-1", "d", "c");
        directories.make("pvc-1", &path).unwrap();
        std::fs::write(path.join("file"), "kept").unwrap();
        directories.make("pvc-1", &path).unwrap();
        assert!(path.join("file").exists());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        assert_eq!(directories.half_made(), ["pvc-1"]);
        directories.made("pvc-1").unwrap();
        assert!(directories.half_made().is_empty());
        directories.remove("pvc-1", &path).unwrap();
        directories.remove("pvc-1", &path).unwrap();
        assert!(!path.exists());
        let long = directories.path("pvc-1", "d", &"c".repeat(253));
        directories.make("pvc-1", &long).unwrap();
        directories.abandon("pvc-1").unwrap();
        assert!(!long.exists() && directories.half_made().is_empty());
    }
}
