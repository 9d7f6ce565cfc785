//! What can go wrong with a cluster of several nodes. Each text says what to do where something can be done.

use std::path::PathBuf;

use kedge_lifecycle::Finding;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name can't be used.
    #[error("{name:?} cannot be a name: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A number makes no sense.
    #[error("{flag} {value} cannot be used: {why}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// The machine is not ready; nothing was changed.
    #[error("this machine is not ready (nothing was changed):{}", list(findings))]
    Preflight {
        /// Everything that is wrong.
        findings: Vec<Finding>,
    },
    /// A cluster of this name is there.
    #[error(
        "there is a cluster {name} already (nothing was changed)\n  remove it with `kedge cluster delete {name}`, or choose another name"
    )]
    Exists {
        /// Its name.
        name: String,
    },
    /// There is no cluster of this name.
    #[error("there is no cluster {name}\n  see which there are with `kedge cluster list`")]
    NoCluster {
        /// The name.
        name: String,
    },
    /// The cluster has no such node.
    #[error("the cluster {cluster} has no node {node}\n  see which it has with `kedge cluster list`")]
    NoNode {
        /// The cluster.
        cluster: String,
        /// The node.
        node: String,
    },
    /// The node is switched off.
    #[error("the node {node} is off\n  start it with `kedge cluster node start {node}`")]
    Off {
        /// The node.
        node: String,
    },
    /// A file or directory can't be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The record of a cluster is damaged.
    #[error("{} is damaged\n  `kedge cluster delete` removes the cluster nevertheless", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A program failed.
    #[error("`{command}` failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// What it said.
        output: String,
    },
    /// A program can't be started.
    #[error("cannot run `{command}`")]
    Spawn {
        /// The command line.
        command: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The kernel refused something.
    #[error("the kernel refused to {action}")]
    Kernel {
        /// What was tried.
        action: String,
        /// Why not.
        source: nix::Error,
    },
    /// Certificates or kubeconfigs.
    #[error(transparent)]
    Pki(#[from] kedge_pki::PkiError),
    /// The API can't be reached.
    #[error(transparent)]
    Connect(#[from] kedge_client::ConnectError),
    /// Something did not happen in time, or can't happen any more.
    #[error("{what}\n  {advice}")]
    NotReached {
        /// What is still not so.
        what: String,
        /// What to look at.
        advice: String,
    },
    /// Something is mounted in the files of a cluster that is to be deleted.
    #[error("{} is a mount point; unmount it, and delete the cluster again", path.display())]
    Mounted {
        /// Where.
        path: PathBuf,
    },
}

fn list(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("\n  [{}] {}", finding.check, finding.text)).collect()
}
