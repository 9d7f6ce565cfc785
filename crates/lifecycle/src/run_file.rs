//! What a running process says of itself in its data directory, for `kedge status` and `kedge down`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// The start time of this process, for a new run file.
    pub fn own_start_ticks() -> u64 {
        i32::try_from(std::process::id()).ok().and_then(start_ticks).unwrap_or_default()
    }
}

fn start_ticks(pid: i32) -> Option<u64> {
    start_ticks_in(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22 of `/proc/<pid>/stat`, which follows a name that may hold spaces. A process that has ended but that its
/// parent has not collected yet (a zombie) does not count.
fn start_ticks_in(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_waits_for_its_parent_has_ended() {
        let stat = |state| format!("7 (a) b) {state} 1 7 7 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 4242 1 1");
        assert_eq!(start_ticks_in(&stat("S")), Some(4242));
        assert_eq!(start_ticks_in(&stat("Z")), None);
    }

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        assert_eq!(RunFile::read(&path).unwrap(), None);
        let mut file = RunFile {
            pid: i32::try_from(std::process::id()).unwrap(),
            start_ticks: RunFile::own_start_ticks(),
            started: Timestamp::UNIX_EPOCH,
            node_name: "n1".to_owned(),
            node_ip: "127.0.0.1".parse().unwrap(),
            secure_port: 6443,
            pod_network_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/12".to_owned(),
            control_plane_only: true,
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
