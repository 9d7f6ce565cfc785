//! Taking things down: the process, the pods, the mounts. Each step ends only what Kedge made.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kedge_cri::{CriError, Runtime};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run_file::RunFile;

const POLL: Duration = Duration::from_millis(50);

/// Why something is still there.
#[derive(Debug, thiserror::Error)]
pub enum TeardownError {
    /// The process does not end.
    #[error(
        "process {pid} did not end within {seconds} s after SIGTERM\n  look at what it does, or end it with `kill -9 {pid}` and run `kedge down` again"
    )]
    StillRunning {
        /// The process.
        pid: i32,
        /// How long was waited.
        seconds: u64,
    },
    /// The process can't be signalled.
    #[error("cannot end process {pid}")]
    Signal {
        /// The process.
        pid: i32,
        /// Why.
        source: nix::Error,
    },
    /// The runtime can't be asked, or refuses.
    #[error("cannot remove the pods from the container runtime")]
    Runtime(#[from] CriError),
    /// A mount is busy.
    #[error("cannot unmount {}", path.display())]
    Unmount {
        /// The mount point.
        path: PathBuf,
        /// Why.
        source: nix::Error,
    },
}

/// Ends the process of a run file with SIGTERM and waits for it. False where it was not running.
pub async fn end_process(run: &RunFile, patience: Duration) -> Result<bool, TeardownError> {
    if !run.is_running() {
        return Ok(false);
    }
    kill(Pid::from_raw(run.pid), Signal::SIGTERM).map_err(|source| TeardownError::Signal { pid: run.pid, source })?;
    let deadline = tokio::time::Instant::now() + patience;
    while run.is_running() {
        if tokio::time::Instant::now() > deadline {
            return Err(TeardownError::StillRunning { pid: run.pid, seconds: patience.as_secs() });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(true)
}

/// Stops and removes the pod sandboxes (with their containers) whose logs lie below `pod_logs`: this cluster's. Returns
/// how many there were.
pub async fn remove_sandboxes(runtime: &Runtime, pod_logs: &Path) -> Result<usize, TeardownError> {
    let mut removed = 0;
    for sandbox in runtime.list_pod_sandboxes(None).await? {
        if !is_ours(&sandbox, pod_logs) {
            continue;
        }
        runtime.stop_pod_sandbox(&sandbox.id).await?;
        runtime.remove_pod_sandbox(&sandbox.id).await?;
        removed += 1;
    }
    Ok(removed)
}

/// Sandboxes carry the uid of their pod, and the logs of that pod lie in a directory of that uid.
fn is_ours(sandbox: &kedge_cri::v1::PodSandbox, pod_logs: &Path) -> bool {
    let Some(metadata) = &sandbox.metadata else { return false };
    pod_logs.join(format!("{}_{}_{}", metadata.namespace, metadata.name, metadata.uid)).is_dir()
}

/// Unmounts everything below a directory, the deepest first. Returns how many mounts there were.
pub fn unmount_below(dir: &Path) -> Result<usize, TeardownError> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points = mounts_below(&table, dir);
    points.sort_by_key(|point| std::cmp::Reverse(point.as_os_str().len()));
    for point in &points {
        umount2(point, MntFlags::MNT_DETACH)
            .map_err(|source| TeardownError::Unmount { path: point.clone(), source })?;
    }
    Ok(points.len())
}

/// The mount points below `dir` in the text of `/proc/self/mountinfo`, in which spaces are written as `\040`.
fn mounts_below(table: &str, dir: &Path) -> Vec<PathBuf> {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(dir))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_directory_count() {
        let table = "36 35 98:0 / /data/kubelet/pods/a rw - tmpfs tmpfs rw\n\
            37 35 98:0 / /data2 rw - ext4 /dev/vda rw\n\
            38 35 98:0 / /data/with\\040space rw - tmpfs tmpfs rw\n";
        let found = mounts_below(table, Path::new("/data"));
        assert_eq!(found, [PathBuf::from("/data/kubelet/pods/a"), PathBuf::from("/data/with space")]);
    }
}
