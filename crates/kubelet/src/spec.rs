//! Readings of a Pod object that several modules need: its parts with defaults applied, and what kind of pod it is.
//!
//! Pure. Invariant: a field that is absent reads as its API default, so static pods and API pods behave alike.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, ObjectReference, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kedge_meta::Quantity;

/// On pods that come from elsewhere than the API.
pub(crate) const CONFIG_SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// On mirror pods: the hash of the static pod.
pub(crate) const CONFIG_MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// The hash of a static pod's manifest.
pub(crate) const CONFIG_HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
/// When a static pod was first seen.
pub(crate) const CONFIG_SEEN_ANNOTATION: &str = "kubernetes.io/config.seen";

static EMPTY_SPEC: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
static EMPTY_STATUS: LazyLock<PodStatus> = LazyLock::new(PodStatus::default);

pub(crate) fn pod_spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&EMPTY_SPEC)
}

pub(crate) fn pod_status(pod: &Pod) -> &PodStatus {
    pod.status.as_ref().unwrap_or(&EMPTY_STATUS)
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `name_namespace(uid)`, as upstream's messages name a pod.
pub(crate) fn format_pod(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub(crate) fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

pub(crate) fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE_ANNOTATION).is_some_and(|source| source != "api")
}

pub(crate) fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, CONFIG_MIRROR_ANNOTATION).is_some()
}

pub(crate) fn host_network(pod: &Pod) -> bool {
    pod_spec(pod).host_network.unwrap_or(false)
}

pub(crate) fn restart_policy(pod: &Pod) -> &str {
    pod_spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

pub(crate) fn init_containers(pod: &Pod) -> &[Container] {
    pod_spec(pod).init_containers.as_deref().unwrap_or_default()
}

pub(crate) fn containers(pod: &Pod) -> &[Container] {
    &pod_spec(pod).containers
}

pub(crate) fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    pod_spec(pod).ephemeral_containers.as_deref().unwrap_or_default()
}

/// An init container that goes on beside the others: a sidecar.
pub(crate) fn is_restartable_init(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub(crate) fn termination_grace_seconds(pod: &Pod) -> i64 {
    pod.metadata.deletion_grace_period_seconds.or(pod_spec(pod).termination_grace_period_seconds).unwrap_or(30)
}

pub(crate) fn is_terminal_phase(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The spec of a container by its name: app, init or ephemeral.
pub(crate) fn find_container(pod: &Pod, wanted: &str) -> Option<Container> {
    let plain = containers(pod).iter().chain(init_containers(pod)).find(|container| container.name == wanted);
    plain.cloned().or_else(|| {
        let ephemeral = ephemeral_containers(pod).iter().find(|container| container.name == wanted)?;
        Some(ephemeral_as_container(ephemeral))
    })
}

/// An ephemeral container in the form of the others.
pub(crate) fn ephemeral_as_container(ephemeral: &EphemeralContainer) -> Container {
    let ephemeral = ephemeral.clone();
    Container {
        args: ephemeral.args,
        command: ephemeral.command,
        env: ephemeral.env,
        env_from: ephemeral.env_from,
        image: ephemeral.image,
        image_pull_policy: ephemeral.image_pull_policy,
        name: ephemeral.name,
        resources: ephemeral.resources,
        security_context: ephemeral.security_context,
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        termination_message_path: ephemeral.termination_message_path,
        termination_message_policy: ephemeral.termination_message_policy,
        tty: ephemeral.tty,
        volume_mounts: ephemeral.volume_mounts,
        working_dir: ephemeral.working_dir,
        ..Container::default()
    }
}

/// `Always` for `:latest` or no tag, else `IfNotPresent`, where the spec does not say.
pub(crate) fn image_pull_policy(container: &Container) -> &str {
    if let Some(policy) = container.image_pull_policy.as_deref().filter(|policy| !policy.is_empty()) {
        return policy;
    }
    let image = container.image.as_deref().unwrap_or_default();
    if image.contains('@') {
        return "IfNotPresent";
    }
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    if matches!(tag, None | Some("latest")) { "Always" } else { "IfNotPresent" }
}

/// The `spec.containers{name}` reference that events about one container carry.
pub(crate) fn container_reference(pod: &Pod, container: &str) -> ObjectReference {
    let list = if containers(pod).iter().any(|c| c.name == container) {
        "containers"
    } else if init_containers(pod).iter().any(|c| c.name == container) {
        "initContainers"
    } else {
        "ephemeralContainers"
    };
    ObjectReference { field_path: Some(format!("spec.{list}{{{container}}}")), ..pod_reference(pod) }
}

/// A reference to the pod itself.
pub(crate) fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// One amount of a resource list; absent or unreadable reads as `None`.
pub(crate) fn amount(list: Option<&BTreeMap<String, ApiQuantity>>, resource: &str) -> Option<Quantity> {
    list?.get(resource)?.0.parse().ok()
}

/// A container's request, which defaults to its limit.
pub(crate) fn request(container: &Container, resource: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    amount(resources.requests.as_ref(), resource).or_else(|| amount(resources.limits.as_ref(), resource))
}

/// A container's limit.
pub(crate) fn limit(container: &Container, resource: &str) -> Option<Quantity> {
    amount(container.resources.as_ref()?.limits.as_ref(), resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies_default_by_tag() {
        for (image, policy) in [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1.36", "IfNotPresent"),
            ("localhost:5000/busybox", "Always"),
            ("localhost:5000/busybox:1", "IfNotPresent"),
            ("busybox@sha256:00", "IfNotPresent"),
        ] {
            let container = Container { image: Some(image.to_owned()), ..Container::default() };
            assert_eq!(image_pull_policy(&container), policy, "{image}");
        }
    }
}
