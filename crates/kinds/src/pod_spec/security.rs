//! Validation of security contexts. Not whether they are allowed: that is pod security admission.

use kedge_meta::FieldError;
use serde_json::Value;

use super::volumes;
use crate::formats;
use crate::path::Path;
use crate::value::{at, int, items, text, texts, truth};

/// The largest user and group id.
const MAX_ID: i64 = i32::MAX as i64;

/// The security context of a pod.
pub(super) fn pod_context(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(context) = at(spec, &["securityContext"]) else { return };
    ids(context, &["fsGroup", "runAsUser", "runAsGroup"], path, errors);
    for (index, group) in items(context, &["supplementalGroups"]).iter().enumerate() {
        let group = group.as_i64().unwrap_or(0);
        path.child("supplementalGroups").index(index).check_number(errors, group, formats::in_range(group, 0, MAX_ID));
    }
    if truth(spec, &["shareProcessNamespace"]) && truth(spec, &["hostPID"]) {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        path.child("shareProcessNamespace").invalid(errors, true, why);
    }
    sysctls(context, spec, &path.child("sysctls"), errors);
    if let Some(policy) = at(context, &["fsGroupChangePolicy"]).and_then(Value::as_str) {
        path.child("fsGroupChangePolicy").one_of(errors, policy, &["Always", "OnRootMismatch"]);
    }
    profiles(context, path, errors);
    if let Some(policy) = at(context, &["supplementalGroupsPolicy"]).and_then(Value::as_str) {
        path.child("supplementalGroupsPolicy").one_of(errors, policy, &["Merge", "Strict"]);
    }
}

/// Other namespaces of the node, and its block devices, do not go with users of the pod's own.
pub(super) fn host_users(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    const WHY: &str = "when `hostUsers` is false";
    if at(spec, &["hostUsers"]).and_then(Value::as_bool) != Some(false) {
        return;
    }
    // Upstream's capitals.
    for (field, named) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if truth(spec, &[field]) {
            path.child(named).forbidden(errors, WHY);
        }
    }
    for list in ["containers", "initContainers"] {
        for (index, container) in items(spec, &[list]).iter().enumerate() {
            if !items(container, &["volumeDevices"]).is_empty() {
                path.child(list).index(index).child("volumeDevices").forbidden(errors, WHY);
            }
        }
    }
}

/// The security context of a container.
pub(super) fn container_context(context: &Value, spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    ids(context, &["runAsUser", "runAsGroup"], path, errors);
    if let Some(mount) = at(context, &["procMount"]).and_then(Value::as_str) {
        path.child("procMount").one_of(errors, mount, &["Default", "Unmasked"]);
        let host_users = at(spec, &["hostUsers"]).and_then(Value::as_bool).unwrap_or(true);
        if host_users && mount == "Unmasked" {
            path.child("procMount").invalid(errors, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    profiles(context, path, errors);
    if at(context, &["allowPrivilegeEscalation"]).and_then(Value::as_bool) == Some(false) {
        if truth(context, &["privileged"]) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            path.invalid(errors, context.clone(), why);
        }
        if texts(context, &["capabilities", "add"]).any(|capability| capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            path.invalid(errors, context.clone(), why);
        }
    }
}

fn ids(context: &Value, fields: &[&str], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for field in fields {
        if let Some(id) = int(context, &[field]) {
            path.child(field).check_number(errors, id, formats::in_range(id, 0, MAX_ID));
        }
    }
}

fn profiles(context: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (field, kind) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let Some(profile) = at(context, &[field]) else { continue };
        let path = path.child(field);
        let profile_type = text(profile, &["type"]);
        path.child("type").required_one_of(errors, profile_type, &["Localhost", "RuntimeDefault", "Unconfined"]);
        let local = at(profile, &["localhostProfile"]).and_then(Value::as_str);
        match (profile_type, local) {
            ("Localhost", None) => {
                let why = format!("must be set when {kind} type is Localhost");
                path.child("localhostProfile").required(errors, &why);
            }
            ("Localhost", Some(file)) if kind == "seccomp" => {
                volumes::descending_path(file, &path.child("localhostProfile"), errors);
            }
            ("Localhost", Some(_)) | (_, None) => {}
            (_, Some(_)) => {
                let why = format!("can only be set when {kind} type is Localhost");
                path.child("localhostProfile").invalid(errors, profile.clone(), &why);
            }
        }
    }
}

fn sysctls(context: &Value, spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let all = items(context, &["sysctls"]);
    for (index, sysctl) in all.iter().enumerate() {
        let path = path.index(index);
        let name = text(sysctl, &["name"]);
        if name.is_empty() {
            path.child("name").required(errors, "");
        } else if !is_sysctl_name(name) {
            let why = "must have at most 253 characters and match regex \
                       ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            path.child("name").invalid(errors, name, why);
        } else if all[..index].iter().any(|earlier| text(earlier, &["name"]) == name) {
            path.child("name").duplicate(errors, name);
        }
        if let Some(field) = host_namespace(name).filter(|field| truth(spec, &[field])) {
            path.child("name").invalid(errors, name, &format!("may not be specified when '{field}' is true"));
        }
    }
}

/// The field of a pod that shares the namespace of a sysctl with the node.
fn host_namespace(name: &str) -> Option<&'static str> {
    let name = name.replace('/', ".");
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|beginning| name.starts_with(beginning));
    match name.as_str() {
        "kernel.sem" => Some("hostIPC"),
        _ if ipc => Some("hostIPC"),
        _ if name.starts_with("net.") => Some("hostNetwork"),
        _ => None,
    }
}

fn is_sysctl_name(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let segment = |text: &str| {
        text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || matches!(c, '-' | '_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}
