//! What a running process says of itself in its data directory, for `kedge status` and `kedge down`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::process::ProcessMark;

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RunFileError {
    /// It can't be read or written.
    #[error("cannot access {}", path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is damaged.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Says beside the run file of a data directory that this process was told to end and did: whoever looks later knows
/// that nothing failed.
///
/// # Errors
/// Where the file cannot be written.
pub fn mark_ended(layout: &Layout) -> Result<(), RunFileError> {
    let (path, own) = (layout.ended_file(), ProcessMark::own());
    let text = format!("{{\"pid\": {}, \"startTicks\": {}}}\n", own.pid, own.start_ticks);
    std::fs::write(&path, text).map_err(|source| RunFileError::Access { path, source })
}

/// One process and what it made on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunFile {
    /// Process id.
    pub pid: i32,
    /// The process's start time in clock ticks since boot, which tells it from a later process with the same id.
    pub start_ticks: u64,
    /// When the process started.
    pub started: Timestamp,
    /// Node name.
    pub node_name: String,
    /// Node address.
    pub node_ip: IpAddr,
    /// Port of the API server.
    pub secure_port: u16,
    /// Pod range.
    pub pod_network_cidr: String,
    /// Service range.
    pub service_cidr: String,
    /// Whether only the control plane runs.
    pub control_plane_only: bool,
    /// The API server of the cluster that this node joined; absent where the control plane is this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<String>,
    /// The container runtime's endpoint, where there is a node.
    pub runtime_endpoint: Option<String>,
    /// Whether that runtime is one that Kedge started.
    pub runtime_is_private: bool,
    /// Where the CNI configuration was written.
    pub cni_config_dir: Option<PathBuf>,
    /// The kubeconfig files into which the context was merged.
    pub kubeconfigs: Vec<PathBuf>,
    /// The name of the context in them.
    pub context: String,
}

impl RunFile {
    /// Reads the file; `None` where there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, RunFileError> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| RunFileError::Damaged { path: path.to_owned(), source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RunFileError::Access { path: path.to_owned(), source }),
        }
    }

    /// Writes the file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), RunFileError> {
        let access = |source| RunFileError::Access { path: path.to_owned(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|error| access(std::io::Error::other(error)))?;
        let temporary = path.with_extension("json.tmp");
        std::fs::write(&temporary, text).map_err(access)?;
        std::fs::rename(&temporary, path).map_err(access)
    }

    /// Whether the process that wrote the file is still there.
    pub fn is_running(&self) -> bool {
        self.process().is_running()
    }

    /// The process that wrote the file.
    pub fn process(&self) -> ProcessMark {
        ProcessMark { pid: self.pid, start_ticks: self.start_ticks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        assert_eq!(RunFile::read(&path).unwrap(), None);
        let own = ProcessMark::own();
        let mut file = RunFile {
            pid: own.pid,
            start_ticks: own.start_ticks,
            started: Timestamp::UNIX_EPOCH,
            node_name: "n1".to_owned(),
            node_ip: "127.0.0.1".parse().unwrap(),
            secure_port: 6443,
            pod_network_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/12".to_owned(),
            control_plane_only: true,
            joined: None,
            runtime_endpoint: None,
            runtime_is_private: false,
            cni_config_dir: None,
            kubeconfigs: Vec::new(),
            context: "kedge".to_owned(),
        };
        file.write(&path).unwrap();
        let read = RunFile::read(&path).unwrap().unwrap();
        assert_eq!(read, file);
        assert!(read.is_running());
        file.start_ticks += 1;
        assert!(!file.is_running());
        std::fs::write(&path, "{").unwrap();
        assert!(RunFile::read(&path).unwrap_err().to_string().contains("is damaged"));
    }
}
