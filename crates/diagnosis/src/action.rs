//! A step of a repair that a program can make: typed, so that it can be checked before, shown, and undone after.
//!
//! Invariant: none of them can lose data, and each can be taken back; what may or cannot is a step for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What to do: on the machine where the cause lies, or through the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Write the manifest of a static pod as it was meant: as `init`, `join` or `upgrade` wrote it last.
    RestoreManifest {
        /// The file.
        path: String,
    },
    /// Remove a file, which has to be empty.
    RemoveEmptyFile {
        /// The file.
        path: String,
    },
    /// Remove a directory, which has to be empty.
    RemoveEmptyDirectory {
        /// The directory.
        path: String,
    },
    /// Move a file out of the directory of static pods.
    MoveOut {
        /// The file.
        path: String,
    },
    /// Set a switch of the kernel, now and after a restart of the machine.
    SetSetting {
        /// As in `net.ipv4.ip_forward`.
        name: String,
        /// Its text.
        value: String,
    },
    /// Load a module of the kernel, now and after a restart of the machine.
    LoadModule {
        /// As in `br_netfilter`.
        name: String,
    },
    /// Start a service, and have it started with the machine.
    StartUnit {
        /// As in `containerd`.
        name: String,
    },
    /// Let a node take pods again.
    Uncordon {
        /// Its name.
        node: String,
    },
    /// Take a taint off a node that is ready, although the taint says that it is not.
    RemoveTaint {
        /// The node.
        node: String,
        /// As in `node.kubernetes.io/out-of-service`.
        key: String,
    },
    /// Put another directive in the place of one in the Corefile.
    ReplaceDirective {
        /// What stands there.
        from: String,
        /// What takes its place.
        to: String,
    },
    /// Make the pods of a Deployment anew, one after the other.
    RestartDeployment {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RestoreManifest { path } => write!(formatter, "restore {path}"),
            Self::RemoveEmptyFile { path } | Self::RemoveEmptyDirectory { path } => write!(formatter, "remove {path}"),
            Self::MoveOut { path } => write!(formatter, "move {path} away"),
            Self::SetSetting { name, value } => write!(formatter, "set {name} to {value}"),
            Self::LoadModule { name } => write!(formatter, "load {name}"),
            Self::StartUnit { name } => write!(formatter, "start {name}"),
            Self::Uncordon { node } => write!(formatter, "uncordon {node}"),
            Self::RemoveTaint { node, key } => write!(formatter, "take {key} off {node}"),
            Self::ReplaceDirective { from, to } => write!(formatter, "write {to} instead of {from} into the Corefile"),
            Self::RestartDeployment { namespace, name } => write!(formatter, "restart {namespace}/{name}"),
        }
    }
}
