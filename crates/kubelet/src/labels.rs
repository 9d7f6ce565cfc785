//! The labels and annotations by which a restarted kubelet knows its sandboxes and containers again, and the hash that
//! tells whether a running container still is what its spec says.
//!
//! Invariant: names and values are upstream's, so that either kubelet takes over the other's containers.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::spec;

pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";

pub(crate) const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
pub(crate) const CONTAINER_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
const CONTAINER_TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
const CONTAINER_TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
const CONTAINER_PRE_STOP_HANDLER: &str = "io.kubernetes.container.preStopHandler";
const CONTAINER_PORTS: &str = "io.kubernetes.container.ports";
const POD_DELETION_GRACE_PERIOD: &str = "io.kubernetes.pod.deletionGracePeriod";
const POD_TERMINATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Labels of a sandbox: the pod's own and those that identify it.
pub(crate) fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(pod_labels(pod));
    labels
}

fn pod_labels(pod: &Pod) -> HashMap<String, String> {
    HashMap::from([
        (POD_NAME.to_owned(), spec::name(pod).to_owned()),
        (POD_NAMESPACE.to_owned(), spec::namespace(pod).to_owned()),
        (POD_UID.to_owned(), spec::uid(pod).to_owned()),
    ])
}

/// Labels of a container.
pub(crate) fn container_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let mut labels = pod_labels(pod);
    labels.insert(CONTAINER_NAME.to_owned(), container.name.clone());
    labels
}

/// Annotations of a container: what is needed to judge and stop it when its pod is not known any more.
pub(crate) fn container_annotations(pod: &Pod, container: &Container, restart_count: u32) -> HashMap<String, String> {
    let mut notes = HashMap::from([
        (CONTAINER_HASH.to_owned(), container_hash(container)),
        (CONTAINER_RESTART_COUNT.to_owned(), restart_count.to_string()),
        (
            CONTAINER_TERMINATION_MESSAGE_PATH.to_owned(),
            container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".to_owned()),
        ),
        (
            CONTAINER_TERMINATION_MESSAGE_POLICY.to_owned(),
            container.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned()),
        ),
    ]);
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        notes.insert(POD_DELETION_GRACE_PERIOD.to_owned(), seconds.to_string());
    }
    if let Some(seconds) = spec::pod_spec(pod).termination_grace_period_seconds {
        notes.insert(POD_TERMINATION_GRACE_PERIOD.to_owned(), seconds.to_string());
    }
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(text) = hook.and_then(|hook| serde_json::to_string(hook).ok()) {
        notes.insert(CONTAINER_PRE_STOP_HANDLER.to_owned(), text);
    }
    let ports = container.ports.as_ref().filter(|ports| !ports.is_empty());
    if let Some(text) = ports.and_then(|ports| serde_json::to_string(ports).ok()) {
        notes.insert(CONTAINER_PORTS.to_owned(), text);
    }
    notes
}

/// The hash of what cannot change without a restart: name and image.
pub(crate) fn container_hash(container: &Container) -> String {
    let picked = serde_json::json!({ "image": container.image.as_deref().unwrap_or_default(), "name": container.name });
    let bytes: Vec<String> = picked.to_string().bytes().map(|byte| byte.to_string()).collect();
    // Upstream hashes Go's printed form of the JSON bytes, not the bytes.
    let printed = format!("([]uint8)[{}]", bytes.join(" "));
    format!("{:x}", fnv1_32a(printed.as_bytes()))
}

fn fnv1_32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// What the annotations of a container say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContainerNotes {
    pub(crate) hash: String,
    pub(crate) restart_count: u32,
    pub(crate) termination_message_path: String,
    pub(crate) fallback_to_logs: bool,
    pub(crate) termination_grace_seconds: Option<i64>,
}

/// Reads the annotations of a container.
pub(crate) fn container_notes(annotations: &HashMap<String, String>) -> ContainerNotes {
    let text = |key: &str| annotations.get(key).cloned().unwrap_or_default();
    let number = |key: &str| annotations.get(key).and_then(|text| text.parse().ok());
    ContainerNotes {
        hash: text(CONTAINER_HASH),
        restart_count: annotations.get(CONTAINER_RESTART_COUNT).and_then(|text| text.parse().ok()).unwrap_or(0),
        termination_message_path: text(CONTAINER_TERMINATION_MESSAGE_PATH),
        fallback_to_logs: text(CONTAINER_TERMINATION_MESSAGE_POLICY) == "FallbackToLogsOnError",
        termination_grace_seconds: number(POD_DELETION_GRACE_PERIOD).or_else(|| number(POD_TERMINATION_GRACE_PERIOD)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_survive_the_round_trip() {
        let container = Container {
            name: "web".to_owned(),
            image: Some("nginx:1".to_owned()),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            ..Container::default()
        };
        let notes = container_notes(&container_annotations(&Pod::default(), &container, 7));
        assert_eq!(notes.restart_count, 7);
        assert_eq!(notes.termination_message_path, "/dev/termination-log");
        assert!(notes.fallback_to_logs);
        assert_eq!(notes.hash, container_hash(&container));
    }

    #[test]
    fn only_name_and_image_change_the_hash() {
        let web = Container { name: "web".to_owned(), image: Some("nginx:1".to_owned()), ..Container::default() };
        let mut changed = web.clone();
        changed.args = Some(vec!["-v".to_owned()]);
        assert_eq!(container_hash(&web), container_hash(&changed));
        changed.image = Some("nginx:2".to_owned());
        assert_ne!(container_hash(&web), container_hash(&changed));
    }
}
