//! The kubelet of a machine: its configuration and flags in upstream's files, and how it is started and stopped.
//!
//! Where systemd runs and has a kubelet service, that is told; elsewhere Kedge keeps the kubelet running itself, from a
//! process of its own ([`crate::keep_kubelet`]). Invariant: containers go on whatever happens to the kubelet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kedge_pki::PkiError;
use serde_json::{Map, Value, json};

use crate::Say;
use crate::cluster_configuration::{Argument, ClusterConfiguration};
use crate::host::{HostLayout, MANIFESTS_DIR};
use crate::init_script::{StartsAgain, ensure_init_script};
use crate::kubelet_keeper::{KUBELET_LOG, own_program, start_keeper, stop_keeper};

const FLAGS_VARIABLE: &str = "KUBELET_KUBEADM_ARGS";

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
    #[error("process {pid}, which keeps the kubelet running, did not end within {} s", waited.as_secs())]
    StillRunning {
        /// The process.
        pid: i32,
        /// For how long it was waited for.
        waited: Duration,
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
pub(crate) fn write(path: &Path, text: &str) -> Result<(), KubeletServiceError> {
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
    start_keeper(layout, &program).await
}

/// Stops the kubelet, and who keeps it running. Containers go on.
pub async fn stop_kubelet(layout: &HostLayout) -> Result<(), KubeletServiceError> {
    if has_systemd_service() {
        return systemctl(&["stop", "kubelet.service"]);
    }
    stop_keeper(layout).await
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
