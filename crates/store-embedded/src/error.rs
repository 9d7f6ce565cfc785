//! Why a data directory could not be opened, in words for the person in front of it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::EngineError;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Another process has the directory.
    #[error("the data directory {} is in use by {}; stop that process or choose another data directory", path.display(), Holder(*pid))]
    Locked {
        /// The process that holds it; none where it could not be read.
        pid: Option<u32>,
        /// The data directory.
        path: PathBuf,
    },
    /// The directory could not be made, read or locked.
    #[error("the data directory {} cannot be used; check that it is writable and that its disk has room", path.display())]
    Directory {
        /// The data directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database in the directory could not be opened or read.
    #[error("the store in {} cannot be opened", path.display())]
    Engine {
        /// The data directory.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The writer's thread could not be started.
    #[error("the store's thread cannot be started")]
    Thread(#[source] io::Error),
}

impl EmbeddedError {
    pub(crate) fn engine(path: &Path, source: impl Into<EngineError>) -> Self {
        let source = match source.into() {
            EngineError::Engine(source) => source,
            other => Box::new(other) as Box<dyn std::error::Error + Send + Sync>,
        };
        Self::Engine { path: path.to_owned(), source }
    }

    pub(crate) fn directory(path: &Path, source: io::Error) -> Self {
        Self::Directory { path: path.to_owned(), source }
    }
}

/// A process in words.
struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}
