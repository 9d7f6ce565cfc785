//! One process for each data directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Why the data directory can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("the data directory {} is held by process {holder}: it runs this cluster\n  see it with `kedge status`, end it with `kedge down`, or choose another with --data-dir", dir.display())]
    Held {
        /// The data directory.
        dir: PathBuf,
        /// The process id of the holder, as it wrote it.
        holder: String,
    },
    /// The directory or the lock file can't be used.
    #[error("cannot use the data directory {}\n  choose one that you may write to with --data-dir", dir.display())]
    Unusable {
        /// The data directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The lock on a data directory, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct InstanceLock {
    _file: Flock<File>,
}

impl InstanceLock {
    /// Takes the lock, making the directory where it is not there.
    pub fn take(dir: &Path, lock: &Path) -> Result<Self, LockError> {
        let unusable = |source| LockError::Unusable { dir: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(unusable)?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock).map_err(unusable)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0).map_err(unusable)?;
                file.rewind().map_err(unusable)?;
                write!(file, "{}", std::process::id()).map_err(unusable)?;
                Ok(Self { _file: file })
            }
            Err((mut file, _)) => {
                let mut holder = String::new();
                // The holder may be writing its number right now; the message is still right without it.
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.is_empty() { "unknown".to_owned() } else { holder };
                Err(LockError::Held { dir: dir.to_owned(), holder })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kedge.lock");
        let first = InstanceLock::take(dir.path(), &path).unwrap();
        let error = InstanceLock::take(dir.path(), &path).unwrap_err().to_string();
        assert!(error.contains(&format!("held by process {}", std::process::id())), "{error}");
        drop(first);
        InstanceLock::take(dir.path(), &path).unwrap();
    }
}
