//! A static pod's manifest: YAML or JSON, one Pod, made into what this node runs.
//!
//! Pure. Invariant: the same file gives the same uid, and a changed file another one, so that a change is a new pod.

use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use sha2::{Digest, Sha256};

use crate::spec;

/// Whether a file of this name is read at all, and if not, whether that deserves a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A manifest.
    Manifest,
    /// Hidden: silently ignored, as upstream does.
    Hidden,
    /// What an editor leaves behind: ignored with a warning.
    Leftover,
}

/// Judges a file by its name.
// DIVERGES: upstream reads every file that does not begin with a dot, so a backup of a manifest is a second pod.
pub(crate) fn file_kind(path: &Path) -> FileKind {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with('.') {
        return FileKind::Hidden;
    }
    let leftover = name.ends_with('~')
        || (name.starts_with('#') && name.ends_with('#'))
        || [".swp", ".swo", ".swx", ".bak", ".tmp", ".orig", ".rej", ".dpkg-old", ".dpkg-new", ".rpmsave", ".rpmnew"]
            .iter()
            .any(|suffix| name.ends_with(suffix));
    if leftover { FileKind::Leftover } else { FileKind::Manifest }
}

/// Reads a manifest. The error says what is wrong with it, without the file's name.
pub(crate) fn parse(path: &Path, content: &[u8], node_name: &str, now: Timestamp) -> Result<Pod, String> {
    let value: serde_json::Value = match serde_json::from_slice(content) {
        Ok(value) => value,
        Err(_) => serde_yaml::from_slice(content).map_err(|error| format!("couldn't parse as pod: {error}"))?,
    };
    if value.is_null() {
        return Err("file is empty".to_owned());
    }
    let text = |key: &str| value.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if (version.as_str(), kind.as_str()) != ("v1", "Pod") {
        return Err(format!(
            "couldn't parse as pod: it is a {kind:?} of apiVersion {version:?}, not a \"Pod\" of \"v1\""
        ));
    }
    let mut pod: Pod = serde_json::from_value(value).map_err(|error| format!("couldn't parse as pod: {error}"))?;
    adopt(&mut pod, path, content, node_name, now);
    validate(&pod)?;
    Ok(pod)
}

fn adopt(pod: &mut Pod, path: &Path, content: &[u8], node_name: &str, now: Timestamp) {
    let metadata = &mut pod.metadata;
    let mut hash = Sha256::new();
    for part in [content, node_name.as_bytes(), path.as_os_str().as_encoded_bytes()] {
        hash.update(part);
    }
    let uid: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    // A manifest's own uid would make two kubelets' pods the same.
    metadata.uid = Some(uid.clone());
    metadata.name = metadata.name.take().map(|name| format!("{name}-{}", node_name.to_lowercase()));
    metadata.namespace.get_or_insert_with(|| "default".to_owned());
    metadata.deletion_timestamp = None;
    metadata.deletion_grace_period_seconds = None;
    metadata.generation = Some(1);
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(spec::CONFIG_HASH_ANNOTATION.to_owned(), uid);
    annotations.insert(spec::CONFIG_SOURCE_ANNOTATION.to_owned(), "file".to_owned());
    annotations.insert(spec::CONFIG_SEEN_ANNOTATION.to_owned(), now.to_string());
    pod.status = None;
    let Some(spec) = pod.spec.as_mut() else { return };
    spec.node_name = Some(node_name.to_owned());
    spec.restart_policy.get_or_insert_with(|| "Always".to_owned());
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".to_owned());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.enable_service_links.get_or_insert(true);
    spec.scheduler_name.get_or_insert_with(|| "default-scheduler".to_owned());
    spec.security_context.get_or_insert_default();
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.iter().any(|toleration| toleration.effect.as_deref() == Some("NoExecute")) {
        tolerations.push(k8s_openapi::api::core::v1::Toleration {
            effect: Some("NoExecute".to_owned()),
            operator: Some("Exists".to_owned()),
            ..Default::default()
        });
    }
    let host_network = spec.host_network.unwrap_or(false);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        adopt_container(container, host_network);
    }
}

fn adopt_container(container: &mut Container, host_network: bool) {
    container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".to_owned());
    container.termination_message_policy.get_or_insert_with(|| "File".to_owned());
    let policy = spec::image_pull_policy(container).to_owned();
    container.image_pull_policy = Some(policy);
    for port in container.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
        if host_network {
            port.host_port.get_or_insert(port.container_port);
        }
    }
    for probe in [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe] {
        probe.as_mut().into_iter().for_each(default_probe);
    }
}

fn default_probe(probe: &mut Probe) {
    probe.timeout_seconds.get_or_insert(1);
    probe.period_seconds.get_or_insert(10);
    probe.success_threshold.get_or_insert(1);
    probe.failure_threshold.get_or_insert(3);
}

fn validate(pod: &Pod) -> Result<(), String> {
    let invalid = |what: String| Err(format!("invalid pod: {what}"));
    let name = spec::name(pod);
    if !kedge_meta::is_dns1123_subdomain(name) {
        return invalid(format!("metadata.name: {name:?} is not a lowercase RFC 1123 subdomain"));
    }
    if !kedge_meta::is_dns1123_label(spec::namespace(pod)) {
        return invalid(format!("metadata.namespace: {:?} is not a lowercase RFC 1123 label", spec::namespace(pod)));
    }
    if spec::containers(pod).is_empty() {
        return invalid("spec.containers: Required value".to_owned());
    }
    let mut names = std::collections::BTreeSet::new();
    for container in spec::containers(pod).iter().chain(spec::init_containers(pod)) {
        if !kedge_meta::is_dns1123_label(&container.name) {
            return invalid(format!("container name {:?} is not a lowercase RFC 1123 label", container.name));
        }
        if !names.insert(&container.name) {
            return invalid(format!("container name {:?} is used twice", container.name));
        }
        if container.image.as_deref().unwrap_or_default().is_empty() {
            return invalid(format!("container {:?} has no image", container.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  hostNetwork: true\n  containers:\n  - {name: a, image: \"nginx:1\", ports: [{containerPort: 80}]}\n";

    fn read(content: &str) -> Result<Pod, String> {
        parse(Path::new("/m/web.yaml"), content.as_bytes(), "Node-1", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn yaml_and_json_become_pods_of_this_node() {
        let pod = read(YAML).unwrap();
        assert_eq!((spec::name(&pod), spec::namespace(&pod)), ("web-node-1", "default"));
        assert!(spec::is_static(&pod));
        assert_eq!(spec::annotation(&pod, spec::CONFIG_HASH_ANNOTATION), pod.metadata.uid.as_deref());
        assert_eq!(spec::containers(&pod)[0].ports.as_ref().unwrap()[0].host_port, Some(80));
        let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"name":"a","image":"nginx"}]}}"#;
        let other = read(json).unwrap();
        assert_ne!(other.metadata.uid, pod.metadata.uid);
        assert_eq!(read(YAML).unwrap().metadata.uid, pod.metadata.uid);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |content: &str, expected: &str| {
            let error = read(content).unwrap_err();
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        };
        check("", "file is empty");
        check("a: [", "couldn't parse as pod");
        check("apiVersion: apps/v1\nkind: Deployment\n", "it is a \"Deployment\"");
        check(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: []}\n",
            "spec.containers: Required value",
        );
        check(&YAML.replace("name: a", "name: A_"), "container name \"A_\"");
        check(&YAML.replace("nginx:1", ""), "has no image");
    }

    #[test]
    fn editors_leave_files_that_are_no_manifests() {
        for (name, kind) in [
            ("web.yaml", FileKind::Manifest),
            ("web", FileKind::Manifest),
            (".web.yaml.swp", FileKind::Hidden),
            ("web.yaml~", FileKind::Leftover),
            ("web.yaml.bak", FileKind::Leftover),
            ("#web.yaml#", FileKind::Leftover),
        ] {
            assert_eq!(file_kind(Path::new(name)), kind, "{name}");
        }
    }
}
