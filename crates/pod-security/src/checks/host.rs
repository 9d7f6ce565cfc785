//! What a pod may share with its node, and which volumes it may have.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Pod, Violation, named, plural, quoted, setters, text};

const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    // Since 1.27.
    "net.ipv4.ip_local_reserved_ports",
    // Since 1.29.
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    // Since 1.32.
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

const ALLOWED_VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

const FORBIDDEN_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

pub(super) fn namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod.spec[*field] == true);
    let shared: Vec<String> = shared.map(|field| format!("{field}=true")).collect();
    (!shared.is_empty()).then(|| Violation::new("host namespaces", shared.join(", ")))
}

fn volumes<'a>(pod: &Pod<'a>) -> impl Iterator<Item = &'a Value> {
    pod.spec["volumes"].as_array().into_iter().flatten()
}

pub(super) fn path_volumes(pod: &Pod<'_>) -> Option<Violation> {
    let bad: Vec<String> =
        volumes(pod).filter(|volume| !volume["hostPath"].is_null()).map(|volume| text(&volume["name"])).collect();
    let detail = || format!("{} {}", plural("volume", "volumes", bad.len()), quoted(&bad));
    (!bad.is_empty()).then(|| Violation::new("hostPath volumes", detail()))
}

pub(super) fn restricted_volumes(pod: &Pod<'_>) -> Option<Violation> {
    let mut kinds = BTreeSet::new();
    let mut bad = Vec::new();
    for volume in volumes(pod) {
        if ALLOWED_VOLUMES.iter().any(|kind| !volume[*kind].is_null()) {
            continue;
        }
        bad.push(text(&volume["name"]));
        kinds.insert(FORBIDDEN_VOLUMES.into_iter().find(|kind| !volume[*kind].is_null()).unwrap_or("unknown"));
    }
    let detail = || {
        format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", bad.len()),
            quoted(&bad),
            plural("uses", "use", bad.len()),
            plural("restricted volume type", "restricted volume types", kinds.len()),
            quoted(&kinds)
        )
    };
    (!bad.is_empty()).then(|| Violation::new("restricted volume types", detail()))
}

pub(super) fn ports(pod: &Pod<'_>) -> Option<Violation> {
    let mut found = BTreeSet::new();
    let bad = pod.containers_where(|container| {
        let all = container["ports"].as_array().into_iter().flatten();
        let of_host: Vec<i64> = all.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0).collect();
        let is_bad = !of_host.is_empty();
        found.extend(of_host.iter().map(ToString::to_string));
        is_bad
    });
    let list = || found.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let detail = || {
        let (uses, ports) = (plural("uses", "use", bad.len()), plural("hostPort", "hostPorts", found.len()));
        format!("{} {uses} {ports} {}", named(&bad), list())
    };
    (!bad.is_empty()).then(|| Violation::new("hostPort", detail()))
}

pub(super) fn probes_and_lifecycle(pod: &Pod<'_>) -> Option<Violation> {
    const HANDLERS: [&str; 5] =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    let mut hosts = BTreeSet::new();
    let bad = pod.containers_where(|container| {
        let handlers = HANDLERS.iter().filter_map(|path| container.pointer(path));
        let all = handlers.flat_map(|handler| [text(&handler["httpGet"]["host"]), text(&handler["tcpSocket"]["host"])]);
        let named: Vec<String> = all.filter(|host| !host.is_empty()).collect();
        let is_bad = !named.is_empty();
        hosts.extend(named);
        is_bad
    });
    let bad: Vec<String> = BTreeSet::from_iter(bad).into_iter().collect();
    let detail = || {
        let what = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
        format!("{} {} {what} {}", named(&bad), plural("uses", "use", bad.len()), quoted(&hosts))
    };
    (!bad.is_empty()).then(|| Violation::new("probe or lifecycle host", detail()))
}

pub(super) fn sysctls_1_0(pod: &Pod<'_>) -> Option<Violation> {
    sysctls(pod, &SYSCTLS[..5])
}

pub(super) fn sysctls_1_27(pod: &Pod<'_>) -> Option<Violation> {
    sysctls(pod, &SYSCTLS[..6])
}

pub(super) fn sysctls_1_29(pod: &Pod<'_>) -> Option<Violation> {
    sysctls(pod, &SYSCTLS[..10])
}

pub(super) fn sysctls_1_32(pod: &Pod<'_>) -> Option<Violation> {
    sysctls(pod, &SYSCTLS)
}

fn sysctls(pod: &Pod<'_>, allowed: &[&str]) -> Option<Violation> {
    let all = pod.security()["sysctls"].as_array().into_iter().flatten().map(|sysctl| text(&sysctl["name"]));
    let bad: Vec<String> = all.filter(|name| !allowed.contains(&name.as_str())).collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", ")))
}

pub(super) fn process(pod: &Pod<'_>) -> Option<Violation> {
    let is_bad = |security: &Value| security["windowsOptions"]["hostProcess"] == true;
    let bad = pod.containers_where(|container| is_bad(&container["securityContext"]));
    let who = setters(is_bad(pod.security()), &bad);
    let detail = || format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    (!who.is_empty()).then(|| Violation::new("hostProcess", detail()))
}
