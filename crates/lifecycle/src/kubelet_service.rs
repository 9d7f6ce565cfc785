//! The kubelet of a machine: its configuration and flags in upstream's files, and how it is started and stopped.
//!
//! Where systemd runs and has a kubelet service, that is told; elsewhere Kedge keeps the kubelet running itself, from a
//! process of its own ([`keep_kubelet`]). Invariant: containers go on whatever happens to the kubelet.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kedge_pki::PkiError;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Say;
use crate::cluster_configuration::{Argument, ClusterConfiguration};
use crate::host::{HostLayout, KUBERNETES_DIR, MANIFESTS_DIR};
use crate::init_script::{StartsAgain, ensure_init_script};
use crate::process::ProcessMark;

const MARK: &str = "/run/kedge/kubelet.json";
/// What the kubelet says, where Kedge keeps it running.
pub const KUBELET_LOG: &str = "/var/log/kedge-kubelet.log";
const FLAGS_VARIABLE: &str = "KUBELET_KUBEADM_ARGS";
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Who ran for longer than this did not fail at its start.
const LASTING: Duration = Duration::from_secs(10);

/// Why the kubelet can't be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum KubeletServiceError {
    /// A file can't be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read`, `write`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program can't be run, or failed.
    #[error("{command} failed: {why}")]
    Command {
        /// What was run.
        command: String,
        /// What it said.
        why: String,
    },
    /// It does not end.
    #[error("process {pid}, which keeps the kubelet running, did not end within {} s", STOP_PATIENCE.as_secs())]
    StillRunning {
        /// The process.
        pid: i32,
    },
}

/// The configuration that all kubelets of the cluster share: kubeadm's defaults, and what the user says above them.
pub fn kubelet_configuration(cluster: &ClusterConfiguration, dns: &[String], user: &Map<String, Value>) -> Value {
    let authority = format!("{}/ca.crt", cluster.certificates_dir);
    let mut document = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": authority},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": dns,
        "clusterDomain": cluster.networking.dns_domain,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "rotateCertificates": true,
        "staticPodPath": MANIFESTS_DIR,
    });
    for (field, value) in user {
        document[field] = value.clone();
    }
    document
}

/// Writes the configuration where the kubelet reads it.
pub fn write_kubelet_config(layout: &HostLayout, document: &Value, say: Say<'_>) -> Result<(), KubeletServiceError> {
    let path = layout.kubelet_config();
    say(&format!("[kubelet-start] Writing kubelet configuration to file \"{}\"", path.display()));
    write(&path, &serde_yaml::to_string(document).unwrap_or_default())
}

/// Writes the flags that are this machine's own.
pub fn write_kubelet_flags(
    layout: &HostLayout,
    usual: &[Argument],
    extra: &[Argument],
    say: Say<'_>,
) -> Result<(), KubeletServiceError> {
    let path = layout.kubelet_flags();
    say(&format!("[kubelet-start] Writing kubelet environment file with flags to file \"{}\"", path.display()));
    let usual = usual.iter().filter(|flag| !extra.iter().any(|extra| extra.name == flag.name));
    let words: Vec<String> = usual.chain(extra).map(|flag| format!("--{}={}", flag.name, flag.value)).collect();
    write(&path, &format!("{FLAGS_VARIABLE}=\"{}\"\n", words.join(" ")))
}

/// Beside it and renamed: a full disk leaves the old one.
fn write(path: &Path, text: &str) -> Result<(), KubeletServiceError> {
    kedge_pki::write_public(path, text.as_bytes()).map_err(|error| match error {
        PkiError::File { action, path, source } => KubeletServiceError::File { action, path, source },
        other => {
            KubeletServiceError::File { action: "write", path: path.to_owned(), source: std::io::Error::other(other) }
        }
    })
}

/// The words of the flags' file.
fn flags_in(text: &str) -> Vec<String> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(FLAGS_VARIABLE)?.strip_prefix('='));
    let value = value.unwrap_or_default().trim().trim_matches('"');
    value.split_whitespace().map(str::to_owned).collect()
}

/// The flags that are this machine's own.
pub(crate) fn kubelet_flags(layout: &HostLayout) -> Vec<String> {
    flags_in(&fs::read_to_string(layout.kubelet_flags()).unwrap_or_default())
}

/// Whether systemd runs here and knows a kubelet.
pub(crate) fn has_systemd_service() -> bool {
    Path::new("/run/systemd/system").is_dir()
        && ["/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"]
            .iter()
            .any(|dir| Path::new(dir).join("kubelet.service").exists())
}

fn systemctl(words: &[&str]) -> Result<(), KubeletServiceError> {
    let command = format!("systemctl {}", words.join(" "));
    let output = Command::new("systemctl").args(words).stdin(Stdio::null()).output();
    let failed = |why: String| KubeletServiceError::Command { command: command.clone(), why };
    let output = output.map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Starts the kubelet; one that runs is started anew, so that it reads its files.
pub async fn start_kubelet(layout: &HostLayout, say: Say<'_>) -> Result<(), KubeletServiceError> {
    stop_kubelet(layout).await?;
    say("[kubelet-start] Starting the kubelet");
    if has_systemd_service() {
        systemctl(&["daemon-reload"])?;
        return systemctl(&["enable", "--now", "kubelet.service"]);
    }
    say(&format!(
        "[kubelet-start] No supported init system detected: kedge keeps the kubelet running itself (log in {KUBELET_LOG})"
    ));
    let program = own_program()?;
    match ensure_init_script(layout, &program) {
        Ok(StartsAgain::Registered(place)) => {
            say(&format!("[kubelet-start] Writing \"{}\": it starts the kubelet with the machine", place.display()));
        }
        Ok(StartsAgain::Already) => {}
        Ok(StartsAgain::Nothing) => say(&format!(
            "[kubelet-start] WARNING: nothing starts the kubelet again with the machine: put the line `{} kubelet-keeper \
             start` into what runs then, such as /etc/rc.local, after the container runtime",
            program.display()
        )),
        Err(error) => say(&format!(
            "[kubelet-start] WARNING: what starts the kubelet with the machine cannot be registered ({error}): run `{} \
             kubelet-keeper start` after each start of the machine",
            program.display()
        )),
    }
    spawn_keeper(&program)
}

fn own_program() -> Result<PathBuf, KubeletServiceError> {
    std::env::current_exe().map_err(cannot_keep)
}

fn cannot_keep(error: std::io::Error) -> KubeletServiceError {
    KubeletServiceError::Command { command: "kedge kubelet-keeper".to_owned(), why: error.to_string() }
}

/// Starts who keeps the kubelet running, where nobody does; what an init script calls.
pub fn ensure_keeper(layout: &HostLayout) -> Result<(), KubeletServiceError> {
    match keeper(layout) {
        Some(_) => Ok(()),
        None => spawn_keeper(&own_program()?),
    }
}

/// The process that keeps the kubelet running, where one does.
pub fn keeper_process(layout: &HostLayout) -> Option<i32> {
    keeper(layout).map(|mark| mark.pid)
}

fn spawn_keeper(program: &Path) -> Result<(), KubeletServiceError> {
    let log = File::options().create(true).append(true).open(KUBELET_LOG);
    let log = log.map_err(|source| KubeletServiceError::File { action: "write", path: KUBELET_LOG.into(), source })?;
    // A session of its own: what ends this command's terminal does not end the kubelet.
    let mut command = Command::new("setsid");
    command.arg("--fork").arg(program).arg("kubelet-keeper").current_dir("/").stdin(Stdio::null());
    let errors = log.try_clone().map_err(cannot_keep)?;
    let status = command.stdout(log).stderr(errors).status().map_err(cannot_keep)?;
    match status.success() {
        true => Ok(()),
        false => Err(cannot_keep(std::io::Error::other(format!("setsid ended with {status}")))),
    }
}

/// Stops the kubelet, and who keeps it running. Containers go on.
pub async fn stop_kubelet(layout: &HostLayout) -> Result<(), KubeletServiceError> {
    if has_systemd_service() {
        return systemctl(&["stop", "kubelet.service"]);
    }
    let Some(mark) = keeper(layout) else { return Ok(()) };
    // It may have ended already, which is what is wanted.
    let _ = kill(Pid::from_raw(mark.pid), Signal::SIGTERM);
    let deadline = Instant::now() + STOP_PATIENCE;
    while mark.is_running() {
        if Instant::now() > deadline {
            return Err(KubeletServiceError::StillRunning { pid: mark.pid });
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
            match tokio::time::timeout(STOP_PATIENCE / 2, child.wait()).await {
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
    fn flags_read_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let layout = HostLayout::below(dir.path());
        let flag = |name: &str, value: &str| Argument { name: name.to_owned(), value: value.to_owned() };
        let usual = [flag("container-runtime-endpoint", "unix:///a"), flag("node-ip", "192.0.2.2")];
        write_kubelet_flags(&layout, &usual, &[flag("node-ip", "192.0.2.3"), flag("v", "2")], &|_| {}).unwrap();
        let text = fs::read_to_string(layout.kubelet_flags()).unwrap();
        assert_eq!(flags_in(&text), ["--container-runtime-endpoint=unix:///a", "--node-ip=192.0.2.3", "--v=2"]);
        assert_eq!(flags_in("OTHER=1\n"), Vec::<String>::new());
    }

    #[test]
    fn the_users_fields_win() {
        let cluster = ClusterConfiguration::default();
        let user = serde_json::from_value(json!({"maxPods": 50, "healthzPort": 1})).unwrap();
        let document = kubelet_configuration(&cluster, &["10.96.0.10".to_owned()], &user);
        assert_eq!((&document["maxPods"], &document["healthzPort"]), (&json!(50), &json!(1)));
        assert_eq!(document["staticPodPath"], "/etc/kubernetes/manifests");
        assert_eq!(document["authentication"]["x509"]["clientCAFile"], "/etc/kubernetes/pki/ca.crt");
    }
}
