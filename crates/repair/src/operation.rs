//! The smallest changes, of a machine or of an object in the API: each has another that undoes it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One change of a machine. Paths are as the machine has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    /// Write a file, whole or not at all.
    WriteFile {
        /// The file.
        path: String,
        /// Its text.
        content: String,
        /// Its permissions.
        mode: u32,
    },
    /// Remove a file; one that is gone already counts.
    RemoveFile {
        /// The file.
        path: String,
    },
    /// Make a directory.
    MakeDirectory {
        /// The directory.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// Remove an empty directory; one that is gone already counts.
    RemoveDirectory {
        /// The directory.
        path: String,
    },
    /// Set a switch of the kernel until the machine's next start.
    SetSetting {
        /// As in `net.ipv4.ip_forward`.
        name: String,
        /// Its text.
        value: String,
    },
    /// Load a module of the kernel.
    LoadModule {
        /// Its name.
        name: String,
    },
    /// Unload a module of the kernel; one that is in use stays.
    UnloadModule {
        /// Its name.
        name: String,
    },
    /// Change an object of a cluster, by a merge patch.
    Patch {
        /// Of which cluster: the address of its API server.
        server: String,
        /// The object's path in the API.
        path: String,
        /// The fields that change.
        patch: Value,
    },
    /// Keep the kubelet running by Kedge itself, where no service manager does.
    StartKubelet,
    /// Stop it, and who keeps it running.
    StopKubelet,
    /// Tell the service manager.
    Unit {
        /// What.
        verb: UnitVerb,
        /// The unit.
        name: String,
    },
}

impl Operation {
    /// Whether switches of the kernel may appear with it.
    pub(crate) fn loads_module(&self) -> bool {
        matches!(self, Self::LoadModule { .. })
    }
}

/// What to tell the service manager of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UnitVerb {
    /// Start it now.
    Start,
    /// Stop it.
    Stop,
    /// Have it started with the machine.
    Enable,
    /// Do not.
    Disable,
}

impl UnitVerb {
    /// As systemctl has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Enable => "enable",
            Self::Disable => "disable",
        }
    }
}
