//! From security contexts of pods and containers to those of the CRI.
//!
//! Pure. Invariant: a container's own setting wins over the pod's; a setting that cannot be honoured is an error, never
//! dropped.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext,
};
use kedge_cri::v1;

use crate::spec;

const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The user that an image names: a number, or a name that only the image's `/etc/passwd` can resolve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageUser {
    pub(crate) uid: Option<i64>,
    pub(crate) name: String,
}

fn pod_context(pod: &Pod) -> PodSecurityContext {
    spec::pod_spec(pod).security_context.clone().unwrap_or_default()
}

/// The namespaces of a pod.
fn namespace_options(pod: &Pod, users: v1::UserNamespace) -> v1::NamespaceOption {
    let pod_spec = spec::pod_spec(pod);
    let node_or_pod = |node: Option<bool>| match node.unwrap_or(false) {
        true => v1::NamespaceMode::Node as i32,
        false => v1::NamespaceMode::Pod as i32,
    };
    let pid = if pod_spec.host_pid.unwrap_or(false) {
        v1::NamespaceMode::Node
    } else if pod_spec.share_process_namespace.unwrap_or(false) {
        v1::NamespaceMode::Pod
    } else {
        v1::NamespaceMode::Container
    };
    v1::NamespaceOption {
        network: node_or_pod(pod_spec.host_network),
        ipc: node_or_pod(pod_spec.host_ipc),
        pid: pid as i32,
        target_id: String::new(),
        userns_options: Some(users),
    }
}

/// The security context of the sandbox.
pub(crate) fn sandbox_context(pod: &Pod, users: v1::UserNamespace) -> v1::LinuxSandboxSecurityContext {
    let context = pod_context(pod);
    let groups = context.supplemental_groups.clone().unwrap_or_default().into_iter().chain(context.fs_group);
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespace_options(pod, users)),
        selinux_options: context.se_linux_options.as_ref().map(selinux),
        run_as_user: context.run_as_user.map(|value| v1::Int64Value { value }),
        run_as_group: context.run_as_user.and(context.run_as_group).map(|value| v1::Int64Value { value }),
        supplemental_groups: groups.collect(),
        supplemental_groups_policy: groups_policy(&context),
        privileged: spec::containers(pod).iter().chain(spec::init_containers(pod)).any(is_privileged),
        seccomp: Some(v1::SecurityProfile {
            profile_type: v1::security_profile::ProfileType::RuntimeDefault as i32,
            localhost_ref: String::new(),
        }),
        ..Default::default()
    }
}

/// The sysctls of a pod, by name.
pub(crate) fn sysctls(pod: &Pod) -> std::collections::HashMap<String, String> {
    let sysctls = pod_context(pod).sysctls.unwrap_or_default();
    sysctls.into_iter().map(|sysctl| (sysctl.name.replace('/', "."), sysctl.value)).collect()
}

fn groups_policy(context: &PodSecurityContext) -> i32 {
    match context.supplemental_groups_policy.as_deref() {
        Some("Strict") => v1::SupplementalGroupsPolicy::Strict as i32,
        _ => v1::SupplementalGroupsPolicy::Merge as i32,
    }
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().is_some_and(|context| context.privileged.unwrap_or(false))
}

fn selinux(options: &k8s_openapi::api::core::v1::SELinuxOptions) -> v1::SeLinuxOption {
    v1::SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

/// The security context of one container. `seccomp_root` is where localhost profiles lie.
pub(crate) fn container_context(
    pod: &Pod,
    container: &Container,
    user: &ImageUser,
    seccomp_root: &str,
    users: v1::UserNamespace,
) -> Result<v1::LinuxContainerSecurityContext, String> {
    let shared = pod_context(pod);
    let own = container.security_context.clone().unwrap_or_default();
    verify_non_root(pod, container, &shared, &own, user)?;
    let run_as_user = own.run_as_user.or(shared.run_as_user);
    let uid = run_as_user.or(user.uid).filter(|_| run_as_user.is_some() || user.name.is_empty());
    let privileged = own.privileged.unwrap_or(false);
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked") || privileged;
    let paths = |paths: &[&str]| match unmasked {
        true => Vec::new(),
        false => paths.iter().map(|path| (*path).to_owned()).collect(),
    };
    let groups = shared.supplemental_groups.clone().unwrap_or_default().into_iter().chain(shared.fs_group);
    Ok(v1::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|capabilities| v1::Capability {
            add_capabilities: capabilities.add.clone().unwrap_or_default(),
            drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(namespace_options(pod, users)),
        selinux_options: own.se_linux_options.as_ref().or(shared.se_linux_options.as_ref()).map(selinux),
        run_as_user: uid.map(|value| v1::Int64Value { value }),
        run_as_group: own.run_as_group.or(shared.run_as_group).map(|value| v1::Int64Value { value }),
        run_as_username: if uid.is_none() { user.name.clone() } else { String::new() },
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups.collect(),
        supplemental_groups_policy: groups_policy(&shared),
        no_new_privs: !allows_escalation(&own),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(seccomp(
            own.seccomp_profile.as_ref().or(shared.seccomp_profile.as_ref()),
            privileged,
            seccomp_root,
        )),
        apparmor: apparmor(own.app_armor_profile.as_ref().or(shared.app_armor_profile.as_ref())),
        ..Default::default()
    })
}

fn allows_escalation(own: &SecurityContext) -> bool {
    own.allow_privilege_escalation.unwrap_or(true)
}

fn seccomp(profile: Option<&SeccompProfile>, privileged: bool, root: &str) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let of = |profile_type: ProfileType, localhost_ref: String| v1::SecurityProfile {
        profile_type: profile_type as i32,
        localhost_ref,
    };
    match profile {
        _ if privileged => of(ProfileType::Unconfined, String::new()),
        Some(profile) if profile.type_ == "RuntimeDefault" => of(ProfileType::RuntimeDefault, String::new()),
        Some(profile) if profile.type_ == "Localhost" => {
            let name = profile.localhost_profile.as_deref().unwrap_or_default();
            of(ProfileType::Localhost, format!("{root}/{name}"))
        }
        _ => of(ProfileType::Unconfined, String::new()),
    }
}

fn apparmor(profile: Option<&AppArmorProfile>) -> Option<v1::SecurityProfile> {
    use v1::security_profile::ProfileType;
    let profile = profile?;
    let (profile_type, localhost_ref) = match profile.type_.as_str() {
        "Localhost" => (ProfileType::Localhost, profile.localhost_profile.clone().unwrap_or_default()),
        "Unconfined" => (ProfileType::Unconfined, String::new()),
        _ => (ProfileType::RuntimeDefault, String::new()),
    };
    Some(v1::SecurityProfile { profile_type: profile_type as i32, localhost_ref })
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    shared: &PodSecurityContext,
    own: &SecurityContext,
    user: &ImageUser,
) -> Result<(), String> {
    if !own.run_as_non_root.or(shared.run_as_non_root).unwrap_or(false) {
        return Ok(());
    }
    let whom = format!("(pod: \"{}\", container: {})", spec::format_pod(pod), container.name);
    match own.run_as_user.or(shared.run_as_user) {
        Some(0) => Err(format!("container's runAsUser breaks non-root policy {whom}")),
        Some(_) => Ok(()),
        None if user.uid == Some(0) => Err(format!("container has runAsNonRoot and image will run as root {whom}")),
        None if user.uid.is_none() && !user.name.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {whom}",
            user.name
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;

    fn pod(context: PodSecurityContext) -> Pod {
        let mut pod =
            Pod { spec: Some(PodSpec { security_context: Some(context), ..PodSpec::default() }), ..Pod::default() };
        pod.metadata.name = Some("p".to_owned());
        pod.metadata.namespace = Some("ns".to_owned());
        pod.metadata.uid = Some("u".to_owned());
        pod
    }

    fn container(context: SecurityContext) -> Container {
        Container { name: "c".to_owned(), security_context: Some(context), ..Container::default() }
    }

    #[test]
    fn non_root_is_verified() {
        let check = |run_as: Option<i64>, user: ImageUser, expected: Option<&str>| {
            let context =
                SecurityContext { run_as_user: run_as, run_as_non_root: Some(true), ..SecurityContext::default() };
            let result = container_context(
                &pod(PodSecurityContext::default()),
                &container(context),
                &user,
                "/s",
                Default::default(),
            );
            assert_eq!(result.err().as_deref(), expected);
        };
        let named = |name: &str| ImageUser { uid: None, name: name.to_owned() };
        check(Some(1), ImageUser::default(), None);
        check(
            Some(0),
            ImageUser::default(),
            Some("container's runAsUser breaks non-root policy (pod: \"p_ns(u)\", container: c)"),
        );
        check(
            None,
            ImageUser { uid: Some(0), name: String::new() },
            Some("container has runAsNonRoot and image will run as root (pod: \"p_ns(u)\", container: c)"),
        );
        check(
            None,
            named("www"),
            Some(
                "container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root (pod: \"p_ns(u)\", container: c)",
            ),
        );
        check(None, ImageUser { uid: Some(5), name: String::new() }, None);
    }

    #[test]
    fn the_containers_own_setting_wins() {
        let shared = PodSecurityContext {
            run_as_user: Some(1000),
            run_as_group: Some(2000),
            fs_group: Some(3000),
            supplemental_groups: Some(vec![4000]),
            ..PodSecurityContext::default()
        };
        let own = SecurityContext {
            run_as_user: Some(1),
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        };
        let context =
            container_context(&pod(shared), &container(own), &ImageUser::default(), "/s", Default::default()).unwrap();
        assert_eq!(context.run_as_user.map(|value| value.value), Some(1));
        assert_eq!(context.run_as_group.map(|value| value.value), Some(2000));
        assert_eq!(context.supplemental_groups, [4000, 3000]);
        assert!(context.no_new_privs && context.readonly_rootfs && !context.privileged);
        assert!(!context.masked_paths.is_empty());
    }

    #[test]
    fn privileged_containers_see_everything() {
        let own = SecurityContext { privileged: Some(true), ..SecurityContext::default() };
        let context = container_context(
            &pod(PodSecurityContext::default()),
            &container(own),
            &ImageUser::default(),
            "/s",
            Default::default(),
        )
        .unwrap();
        assert!(context.privileged && context.masked_paths.is_empty() && context.readonly_paths.is_empty());
        assert!(!context.no_new_privs);
    }
}
