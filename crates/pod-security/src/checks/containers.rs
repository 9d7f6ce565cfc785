//! What single containers may do.

use std::collections::BTreeSet;

use super::{Pod, Violation, named, quoted, text};

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

pub(super) fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let bad = pod.containers_where(|container| container["securityContext"]["privileged"] == true);
    (!bad.is_empty())
        .then(|| Violation::new("privileged", format!("{} must not set securityContext.privileged=true", named(&bad))))
}

pub(super) fn privilege_escalation(pod: &Pod<'_>) -> Option<Violation> {
    let bad = pod.containers_where(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    let detail = || format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&bad));
    (!bad.is_empty()).then(|| Violation::new("allowPrivilegeEscalation != false", detail()))
}

pub(super) fn privilege_escalation_but_on_windows(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { privilege_escalation(pod) }
}

pub(super) fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let bad = pod.containers_where(|container| {
        let mount = container["securityContext"]["procMount"].as_str().filter(|mount| *mount != "Default");
        mount.is_some_and(|mount| {
            values.insert(mount.to_owned());
            true
        })
    });
    let detail = || format!("{} must not set securityContext.procMount to {}", named(&bad), quoted(&values));
    (!bad.is_empty()).then(|| Violation::new("procMount", detail()))
}

pub(super) fn proc_mount_outside_user_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { proc_mount(pod) }
}

/// Containers that add what is not allowed, and what they add.
fn adding(pod: &Pod<'_>, is_allowed: impl Fn(&str) -> bool) -> (Vec<String>, BTreeSet<String>) {
    let mut added = BTreeSet::new();
    let bad = pod.containers_where(|container| {
        let all = container["securityContext"]["capabilities"]["add"].as_array().into_iter().flatten().map(text);
        let forbidden: Vec<String> = all.filter(|capability| !is_allowed(capability)).collect();
        let is_bad = !forbidden.is_empty();
        added.extend(forbidden);
        is_bad
    });
    (bad, added)
}

fn must_not_include(bad: &[String], added: &BTreeSet<String>) -> String {
    format!("{} must not include {} in securityContext.capabilities.add", named(bad), quoted(added))
}

pub(super) fn capabilities_baseline(pod: &Pod<'_>) -> Option<Violation> {
    let (bad, added) = adding(pod, |capability| DEFAULT_CAPABILITIES.contains(&capability));
    (!bad.is_empty()).then(|| Violation::new("non-default capabilities", must_not_include(&bad, &added)))
}

pub(super) fn capabilities_restricted(pod: &Pod<'_>) -> Option<Violation> {
    let missing = pod.containers_where(|container| {
        let mut dropped = container["securityContext"]["capabilities"]["drop"].as_array().into_iter().flatten();
        !dropped.any(|capability| capability == "ALL")
    });
    let (bad, added) = adding(pod, |capability| capability == "NET_BIND_SERVICE");
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&missing)));
    }
    if !bad.is_empty() {
        details.push(must_not_include(&bad, &added));
    }
    (!details.is_empty()).then(|| Violation::new("unrestricted capabilities", details.join("; ")))
}

pub(super) fn capabilities_restricted_but_on_windows(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { capabilities_restricted(pod) }
}
