//! Why a drill cannot go on.

use std::path::PathBuf;

/// Why a drill cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read`, `write`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} is not usable: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A scenario is not as it should be.
    #[error("the scenario {id} is not usable: {why}")]
    Scenario {
        /// Which.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// It may not be done now.
    #[error("{0}")]
    Refused(String),
    /// A command on a machine failed.
    #[error("on {machine}: {command} failed: {why}")]
    Command {
        /// The machine.
        machine: String,
        /// In short.
        command: String,
        /// What it said.
        why: String,
    },
    /// The API server did not do what was asked.
    #[error("{what}: {why}")]
    Api {
        /// The request.
        what: String,
        /// The answer.
        why: String,
    },
    /// The way to the API is not usable.
    #[error("cannot use the kubeconfig")]
    Connect(#[from] kedge_client::ConnectError),
    /// A test host cannot be switched or asked.
    #[error("the test host does not obey")]
    Cluster(#[from] kedge_cluster::Error),
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] kedge_pki::PkiError),
    /// What was broken does not show.
    #[error("not seen within {seconds} s: {what}")]
    NotSeen {
        /// What was waited for, with what was seen instead.
        what: String,
        /// For how long.
        seconds: u64,
    },
    /// Something could not be taken back yet.
    #[error("{} steps could not be taken back; run `kedge drill stop` again:\n  {}", left.len(), left.join("\n  "))]
    NotUndone {
        /// Each with why.
        left: Vec<String>,
    },
}
