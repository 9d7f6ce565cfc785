//! What the provisioner needs to know and to be given, and what can go wrong.

use std::path::PathBuf;

use kedge_client::{Client, Informers};
use kedge_meta::ComponentStatus;

/// How the provisioner works.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node whose claims are served.
    pub node_name: String,
    /// The directory under which volumes are made; absolute.
    pub root: PathBuf,
}

/// What the provisioner works with.
pub struct Deps {
    /// The API, as somebody who may write volumes and claims.
    pub client: Client,
    /// The API, as somebody who may create storage classes.
    pub class_client: Client,
    /// The caches of this process.
    pub informers: Informers,
    /// Where the component reports.
    pub status: ComponentStatus,
}

/// Why the provisioner does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The root is no absolute path.
    #[error("the directory for volumes must be an absolute path, not {}", .0.display())]
    Root(PathBuf),
}

/// Why one claim or volume was not dealt with; it is tried again with back-off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The API refused, or can't be reached.
    #[error("a request to the API server failed")]
    Api(#[from] kube::Error),
    /// A directory could not be made or removed.
    #[error("{action} {}", .path.display())]
    Directory {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The claim or volume asks for what this provisioner does not do.
    #[error("{0}")]
    Unsupported(String),
}

impl ReconcileError {
    /// The whole chain as one text, for events.
    pub(crate) fn text(&self) -> String {
        let mut text = match self {
            ReconcileError::Api(kube::Error::Api(status)) => return status.message.clone(),
            other => other.to_string(),
        };
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }

    /// Whether this is an ordinary race with another writer.
    pub(crate) fn is_race(&self) -> bool {
        matches!(self, ReconcileError::Api(kube::Error::Api(status)) if matches!(status.code, 404 | 409))
    }
}
