//! Profiles of AppArmor, seccomp and SELinux.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Pod, Violation, named, plural, quoted, setters, text};

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// Whether a security context has a profile of a forbidden type, which is noted.
fn has_bad_type(security: &Value, field: &str, values: &mut BTreeSet<String>) -> bool {
    let profile = &security[field];
    if profile.is_null() {
        return false;
    }
    let kind = text(&profile["type"]);
    let is_bad = !matches!(kind.as_str(), "RuntimeDefault" | "Localhost");
    if is_bad {
        values.insert(kind);
    }
    is_bad
}

pub(super) fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let of_pod = has_bad_type(pod.security(), "appArmorProfile", &mut types);
    let bad =
        pod.containers_where(|container| has_bad_type(&container["securityContext"], "appArmorProfile", &mut types));
    let is_allowed = |value: &str| matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
    let all = pod.metadata["annotations"].as_object().into_iter().flatten();
    let forbidden = all.filter(|(key, value)| key.starts_with(APP_ARMOR) && !is_allowed(value.as_str().unwrap_or("")));
    let annotations: BTreeSet<String> = forbidden.map(|(key, value)| format!("{key}={:?}", text(value))).collect();
    let mut who = setters(of_pod, &bad);
    if !annotations.is_empty() {
        let and = if who.is_empty() { "" } else { " and " };
        who = format!("{who}{and}{}", plural("annotation", "annotations", annotations.len()));
    }
    let values: Vec<&String> = types.iter().chain(&annotations).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    let detail = || format!("{who} must not set AppArmor profile type to {}", quoted(&values));
    (!who.is_empty()).then(|| Violation::new(reason, detail()))
}

pub(super) fn selinux_1_0(pod: &Pod<'_>) -> Option<Violation> {
    selinux(pod, &SELINUX_TYPES[..4])
}

pub(super) fn selinux_1_31(pod: &Pod<'_>) -> Option<Violation> {
    selinux(pod, &SELINUX_TYPES)
}

fn selinux(pod: &Pod<'_>, allowed: &[&str]) -> Option<Violation> {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut is_bad = |security: &Value| {
        let options = &security["seLinuxOptions"];
        let (kind, has_user, has_role) =
            (text(&options["type"]), !text(&options["user"]).is_empty(), !text(&options["role"]).is_empty());
        let bad_type = !allowed.contains(&kind.as_str());
        if bad_type {
            types.insert(kind);
        }
        user |= has_user;
        role |= has_role;
        bad_type || has_user || has_role
    };
    let of_pod = is_bad(pod.security());
    let bad = pod.containers_where(|container| is_bad(&container["securityContext"]));
    let who = setters(of_pod, &bad);
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    data.extend(user.then(|| "user may not be set".to_owned()));
    data.extend(role.then(|| "role may not be set".to_owned()));
    let detail = || format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
    (!who.is_empty()).then(|| Violation::new("seLinuxOptions", detail()))
}

/// Before there were fields.
pub(super) fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    let is_allowed =
        |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let names = pod.containers().map(|container| format!("{SECCOMP_CONTAINER}{}", text(&container["name"])));
    let keys = std::iter::once(SECCOMP_POD.to_owned()).chain(names);
    let value = |key: String| {
        let value = pod.metadata["annotations"].get(&key)?.as_str()?.to_owned();
        (!is_allowed(&value)).then(|| format!("{key}={value:?}"))
    };
    let forbidden: BTreeSet<String> = keys.filter_map(value).collect();
    let joined = || forbidden.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let detail = || format!("forbidden {} {}", plural("annotation", "annotations", forbidden.len()), joined());
    (!forbidden.is_empty()).then(|| Violation::new("seccompProfile", detail()))
}

pub(super) fn seccomp_baseline(pod: &Pod<'_>) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let of_pod = has_bad_type(pod.security(), "seccompProfile", &mut types);
    let bad =
        pod.containers_where(|container| has_bad_type(&container["securityContext"], "seccompProfile", &mut types));
    let who = setters(of_pod, &bad);
    let detail = || format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&types));
    (!who.is_empty()).then(|| Violation::new("seccompProfile", detail()))
}

pub(super) fn seccomp_restricted(pod: &Pod<'_>) -> Option<Violation> {
    if let Some(violation) = seccomp_baseline(pod) {
        return Some(violation);
    }
    let of_pod = !pod.security()["seccompProfile"].is_null();
    let implicit =
        pod.containers_where(|container| !of_pod && container["securityContext"]["seccompProfile"].is_null());
    let detail = || {
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            named(&implicit)
        )
    };
    (!implicit.is_empty()).then(|| Violation::new("seccompProfile", detail()))
}

pub(super) fn seccomp_restricted_but_on_windows(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { seccomp_restricted(pod) }
}
