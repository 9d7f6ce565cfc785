//! Who keeps the kubelet running on a machine without systemd: a process of Kedge's own, in a session of its own.
//!
//! Invariant: there is one at most. Whoever starts a second while the first is still starting finds the lock taken.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::host::{HostLayout, KUBERNETES_DIR};
use crate::kubelet_service::{KubeletServiceError, kubelet_flags, write};
use crate::process::ProcessMark;

/// What the kubelet says, where Kedge keeps it running.
pub const KUBELET_LOG: &str = "/var/log/kedge-kubelet.log";
const MARK: &str = "/run/kedge/kubelet.json";
/// Held by who keeps the kubelet running, from before the mark is written to the end. It stays when nobody holds it: a
/// lock on a file that somebody else removes guards nothing.
const LOCK: &str = "/run/kedge/kubelet.lock";
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Who ran for longer than this did not fail at its start.
const LASTING: Duration = Duration::from_secs(10);

/// Starts who keeps the kubelet running, where nobody does; what an init script calls. Returns when it runs.
pub async fn ensure_keeper(layout: &HostLayout) -> Result<(), KubeletServiceError> {
    match keeper(layout) {
        Some(_) => Ok(()),
        None => start_keeper(layout, &own_program()?).await,
    }
}

/// The process that keeps the kubelet running, where one does.
pub fn keeper_process(layout: &HostLayout) -> Option<i32> {
    keeper(layout).map(|mark| mark.pid)
}

pub(crate) fn own_program() -> Result<PathBuf, KubeletServiceError> {
    std::env::current_exe().map_err(cannot_keep)
}

fn cannot_keep(error: std::io::Error) -> KubeletServiceError {
    KubeletServiceError::Command { command: "kedge kubelet-keeper".to_owned(), why: error.to_string() }
}

/// Returns when it has said who it is, so that the next command finds it.
pub(crate) async fn start_keeper(layout: &HostLayout, program: &Path) -> Result<(), KubeletServiceError> {
    let log = File::options().create(true).append(true).open(KUBELET_LOG);
    let log = log.map_err(|source| KubeletServiceError::File { action: "write", path: KUBELET_LOG.into(), source })?;
    // A session of its own: what ends this command's terminal does not end the kubelet.
    let mut command = Command::new("setsid");
    command.arg("--fork").arg(program).arg("kubelet-keeper").current_dir("/").stdin(Stdio::null());
    let errors = log.try_clone().map_err(cannot_keep)?;
    let status = command.stdout(log).stderr(errors).status().map_err(cannot_keep)?;
    if !status.success() {
        return Err(cannot_keep(std::io::Error::other(format!("setsid ended with {status}"))));
    }
    let deadline = Instant::now() + PATIENCE;
    while keeper(layout).is_none() {
        if Instant::now() > deadline {
            let why = format!("it does not run after {} s: {KUBELET_LOG} says why", PATIENCE.as_secs());
            return Err(cannot_keep(std::io::Error::other(why)));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Ends who keeps the kubelet running, and with it the kubelet.
pub(crate) async fn stop_keeper(layout: &HostLayout) -> Result<(), KubeletServiceError> {
    let Some(mark) = keeper(layout) else { return Ok(()) };
    // It may have ended already, which is what is wanted.
    let _ = kill(Pid::from_raw(mark.pid), Signal::SIGTERM);
    let deadline = Instant::now() + PATIENCE;
    while mark.is_running() {
        if Instant::now() > deadline {
            return Err(KubeletServiceError::StillRunning { pid: mark.pid, waited: PATIENCE });
        }
        tokio::time::sleep(POLL).await;
    }
    let _ = fs::remove_file(layout.at(MARK));
    Ok(())
}

/// Who keeps the kubelet running, where somebody does.
fn keeper(layout: &HostLayout) -> Option<ProcessMark> {
    let mark: ProcessMark = serde_json::from_slice(&fs::read(layout.at(MARK)).ok()?).ok()?;
    mark.is_running().then_some(mark)
}

/// Keeps the kubelet running until `shutdown`, with the flags that its file has each time it starts.
pub async fn keep_kubelet(layout: &HostLayout, shutdown: CancellationToken) -> Result<(), KubeletServiceError> {
    let Some(_held) = only_one(layout)? else {
        tracing::info!("another process keeps the kubelet running already");
        return Ok(());
    };
    let mark = serde_json::to_string(&ProcessMark::own()).unwrap_or_default();
    write(&layout.at(MARK), &mark)?;
    let mut pause = SHORTEST_PAUSE;
    while !shutdown.is_cancelled() {
        let began = Instant::now();
        match run_kubelet_once(layout, &shutdown).await {
            Ok(status) => tracing::warn!(%status, "the kubelet ended"),
            Err(error) => tracing::error!(%error, "the kubelet can't be started"),
        }
        pause = if began.elapsed() > LASTING { SHORTEST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
    Ok(())
}

/// The lock, unless another process has it. It is let go with the process, however that ends.
fn only_one(layout: &HostLayout) -> Result<Option<File>, KubeletServiceError> {
    let path = layout.at(LOCK);
    let fails = |source| KubeletServiceError::File { action: "lock", path: path.clone(), source };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(fails)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(fails)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(fails(source)),
    }
}

async fn run_kubelet_once(
    layout: &HostLayout,
    shutdown: &CancellationToken,
) -> std::io::Result<std::process::ExitStatus> {
    let program = std::env::current_exe()?;
    let mut command = tokio::process::Command::new(program);
    command.arg("kubelet").args(kubelet_words(layout)).current_dir("/").stdin(Stdio::null());
    let mut child = command.kill_on_drop(true).spawn()?;
    tokio::select! {
        status = child.wait() => status,
        () = shutdown.cancelled() => {
            if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
            match tokio::time::timeout(PATIENCE / 2, child.wait()).await {
                Ok(status) => status,
                Err(_) => {
                    child.start_kill()?;
                    child.wait().await
                }
            }
        }
    }
}

/// The flags of upstream's unit file, and those of the machine's own file.
fn kubelet_words(layout: &HostLayout) -> Vec<String> {
    let mut words = vec![
        format!("--kubeconfig={KUBERNETES_DIR}/kubelet.conf"),
        format!("--config={}", layout.kubelet_config().display()),
    ];
    // Only who joins has one.
    let bootstrap = layout.kubeconfig("bootstrap-kubelet.conf");
    words.extend(bootstrap.exists().then(|| format!("--bootstrap-kubeconfig={}", bootstrap.display())));
    words.extend(kubelet_flags(layout));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_keeps_the_kubelet() {
        let dir = tempfile::tempdir().unwrap();
        let layout = HostLayout::below(dir.path());
        let first = only_one(&layout).unwrap();
        assert!(first.is_some());
        assert!(only_one(&layout).unwrap().is_none());
        drop(first);
        assert!(only_one(&layout).unwrap().is_some());
    }
}
