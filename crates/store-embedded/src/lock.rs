//! The lock of a data directory: a file that names the process that holds it.
//!
//! Invariant: the kernel holds the lock, not the file, so a process that was killed leaves nothing behind to clean up.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::EmbeddedError;

const FILE: &str = "lock";

/// Holds the directory until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the directory where it is not there, and takes it.
    pub(crate) fn take(directory: &Path) -> Result<Self, EmbeddedError> {
        let failed = |source| EmbeddedError::directory(directory, source);
        std::fs::create_dir_all(directory).map_err(failed)?;
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).to_owned();
        let mut file = options.open(directory.join(FILE)).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(EmbeddedError::Locked { pid: read_pid(&mut file), path: directory.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        write_pid(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
