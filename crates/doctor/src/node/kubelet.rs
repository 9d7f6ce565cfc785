//! How the node agent and its sisters are told to run: configuration, flags, and whom their kubeconfigs call, trust and are.
//!
//! Keys and tokens are in none of it.

use std::path::{Path, PathBuf};

use kedge_bootstrap::renewal_command;
use kedge_bundle::certificate_fact;
use kedge_diagnosis::{Fact, FileFact};
use kedge_pki::{CertificateFacts, KubeconfigCluster, hex_digest, kubeconfig_certificate};
use serde_json::{Value, json};

use crate::machine;
use crate::node::reading::Reading;

/// A configuration is larger than this by mistake only.
const MOST_BYTES: u64 = 1 << 20;
const CONFIG: &str = "var/lib/kubelet/config.yaml";
const FLAGS: [&str; 3] = ["var/lib/kubelet/kubeadm-flags.env", "etc/default/kubelet", "etc/sysconfig/kubelet"];

/// Reads below a root, which is `/` but for tests.
pub(super) fn read(root: &Path) -> Reading {
    let mut reading = Reading::default();
    config(&root.join(CONFIG), &mut reading);
    for name in FLAGS {
        if let Some(text) = text(&root.join(name), &mut reading) {
            reading.document("kubelet-flags", &root.join(name).display().to_string(), Ok(Value::String(text)));
        }
    }
    let directory = root.join("etc/kubernetes");
    let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == "conf")) {
        kubeconfig(path, root, &mut reading);
    }
    token_key(&directory.join("pki/sa.pub"), &mut reading);
    reading
}

/// The configuration, and whether the directories that it names are there.
fn config(path: &Path, reading: &mut Reading) {
    let Some(text) = text(path, reading) else { return };
    let content = serde_yaml::from_str::<Value>(&text).map_err(|error| error.to_string());
    if let Some(directory) = content.as_ref().ok().and_then(|config| config["staticPodPath"].as_str()) {
        let file: FileFact = machine::file(directory.trim_end_matches('/'));
        reading.add(format!("ls -la {directory}"), Fact::File(file));
    }
    reading.document("kubelet", &path.display().to_string(), content);
}

/// Whom a kubeconfig calls, which authorities it trusts (by their fingerprints), and the certificate that it shows.
fn kubeconfig(path: &Path, root: &Path, reading: &mut Reading) {
    let shown = path.display().to_string();
    // An empty one is a finding of its own, of the file.
    if std::fs::metadata(path).is_ok_and(|found| found.len() == 0) {
        return;
    }
    let content = match KubeconfigCluster::read(path) {
        Ok(cluster) => Ok(json!({
            "server": cluster.server,
            "authority": fingerprints(&cluster.authority_pem),
            "tlsServerName": cluster.tls_server_name,
            "renewal": renewal(path, root),
        })),
        Err(error) => Err(error.to_string()),
    };
    reading.document("kubeconfig", &shown, content);
    match kubeconfig_certificate(path) {
        Ok(Some(pem)) => match certificate_fact(&pem, &shown) {
            Ok(fact) => reading.add(format!("kedge certs check-expiration # {shown}"), fact),
            Err(why) => reading.miss(shown, why),
        },
        Ok(None) => {}
        Err(error) => reading.miss(shown, error),
    }
}

/// The command that gives a worker another certificate once its own has ended; a control plane makes itself one.
fn renewal(path: &Path, root: &Path) -> Option<String> {
    let is_worker = !root.join("etc/kubernetes/pki/ca.key").exists();
    let is_own = path.file_name().is_some_and(|name| name == "kubelet.conf");
    (is_own && is_worker).then(|| renewal_command(path, &root.join("var/lib/kubelet")))
}

/// Fingerprints of all certificates of a text, with spaces between.
fn fingerprints(pem: &str) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let each = pem.split(BEGIN).skip(1).filter_map(|part| CertificateFacts::read(&format!("{BEGIN}{part}")).ok());
    each.map(|facts| facts.fingerprint).collect::<Vec<_>>().join(" ")
}

/// Which key tokens are checked with: a digest of it.
fn token_key(path: &Path, reading: &mut Reading) {
    let Some(pem) = text(path, reading) else { return };
    let digest = hex_digest(pem.trim().as_bytes());
    reading.document("sa.pub", &path.display().to_string(), Ok(Value::String(digest)));
}

fn text(path: &Path, reading: &mut Reading) -> Option<String> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Ok(found) if found.len() > MOST_BYTES => {
            reading.miss(path.display().to_string(), format!("it has {} bytes", found.len()));
            return None;
        }
        _ => {}
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) => {
            reading.miss(path.display().to_string(), error);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_and_flags_are_read_and_keys_are_not() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("it is made");
            std::fs::write(path, text).expect("it is written");
        };
        write(CONFIG, "staticPodPath: /nowhere/manifests\ncgroupDriver: systemd\n");
        write(FLAGS[0], "KUBELET_KUBEADM_ARGS=\"--node-ip=192.0.2.1\"\n");
        write("etc/kubernetes/scheduler.conf", "");
        write("etc/kubernetes/admin.conf", "clusters: []\nusers: [{name: a, user: {token: secret}}]\n");
        let reading = read(root.path());
        let shown: Vec<String> = reading.facts().map(|(_, fact)| format!("{fact:?}")).collect();
        let all = shown.join("\n");
        assert!(all.contains("\"staticPodPath\": String(\"/nowhere/manifests\")") && all.contains("Missing"), "{all}");
        assert!(
            all.contains("--node-ip=192.0.2.1") && !all.contains("secret") && !all.contains("scheduler.conf"),
            "{all}"
        );
    }
}
