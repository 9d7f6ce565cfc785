//! Readings of a Pod object that volumes need.
//!
//! Pure. Invariant: a field that is absent reads as its API default.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use kedge_meta::Quantity;

static EMPTY_SPEC: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);

pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&EMPTY_SPEC)
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
pub(crate) fn format(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub(crate) fn volumes(pod: &Pod) -> &[Volume] {
    spec(pod).volumes.as_deref().unwrap_or_default()
}

/// App containers, then init containers.
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    spec(pod).containers.iter().chain(spec(pod).init_containers.iter().flatten())
}

/// What the pod's containers may use of the node's memory, where they are limited, in bytes.
pub(crate) fn memory_limit(pod: &Pod) -> Option<i64> {
    let limit = |container: &Container| {
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        limits.get("memory")?.0.parse::<Quantity>().ok().map(Quantity::units)
    };
    let of_pod = spec(pod).resources.as_ref().and_then(|resources| resources.limits.as_ref()?.get("memory"));
    if let Some(bytes) = of_pod.and_then(|limit| limit.0.parse::<Quantity>().ok()) {
        return Some(bytes.units());
    }
    let restartable = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let init = || spec(pod).init_containers.iter().flatten();
    let together: i64 = spec(pod).containers.iter().chain(init().filter(restartable)).filter_map(limit).sum();
    let alone = init().filter_map(limit).max().unwrap_or(0);
    Some(together.max(alone)).filter(|bytes| *bytes > 0)
}

/// The group of volumes, `fsGroup`.
pub(crate) fn fs_group(pod: &Pod) -> Option<u32> {
    let group = spec(pod).security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// The user of all containers, where they have one in common.
pub(crate) fn common_user(pod: &Pod) -> Option<u32> {
    let shared = spec(pod).security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users =
        containers(pod).map(|container| container.security_context.as_ref().and_then(|own| own.run_as_user).or(shared));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodSecurityContext, SecurityContext};

    use super::*;

    #[test]
    fn a_token_belongs_to_the_user_that_all_containers_share() {
        let check = |shared: Option<i64>, own: &[Option<i64>], expected: Option<u32>| {
            let containers = own.iter().map(|user| Container {
                security_context: Some(SecurityContext { run_as_user: *user, ..SecurityContext::default() }),
                ..Container::default()
            });
            let context = PodSecurityContext { run_as_user: shared, ..PodSecurityContext::default() };
            let spec =
                PodSpec { containers: containers.collect(), security_context: Some(context), ..PodSpec::default() };
            assert_eq!(common_user(&Pod { spec: Some(spec), ..Pod::default() }), expected);
        };
        check(None, &[None], None);
        check(Some(5), &[None, None], Some(5));
        check(Some(5), &[None, Some(6)], None);
        check(None, &[Some(6), Some(6)], Some(6));
    }
}
