//! Validation of containers of all three sorts: names, images, ports, mounts.
//!
//! The invariant: a container is checked in the order in which upstream checks it, so that lists of errors read the same.

use kedge_meta::FieldError;
use serde_json::Value;

use super::validation::Scope;
use super::{env, probes, resources, security, volumes};
use crate::formats;
use crate::path::Path;
use crate::value::{at, entries, int, is_set, items, text, truth};

/// Fields that an ephemeral container may have.
const EPHEMERAL_FIELDS: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "env",
    "envFrom",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
];

/// `containers`, `initContainers` and `ephemeralContainers` of a pod spec.
pub(super) fn containers(spec: &Value, scope: Scope, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let grace = int(spec, &["terminationGracePeriodSeconds"]);
    let os = at(spec, &["os"]).map(|os| text(os, &["name"]));
    let regular = items(spec, &["containers"]);
    if regular.is_empty() {
        path.child("containers").required(errors, "");
    }
    for (index, container) in regular.iter().enumerate() {
        let list = path.child("containers");
        let path = list.index(index);
        common(container, spec, scope, &path, errors);
        unique_name(container, regular[..index].iter(), &path, errors);
        probes::probes_and_hooks(container, grace, os, &path, errors);
        restart_policy(container, &path, errors);
    }
    host_ports(regular, &path.child("containers"), errors);
    let init = items(spec, &["initContainers"]);
    for (index, container) in init.iter().enumerate() {
        let list = path.child("initContainers");
        let path = list.index(index);
        common(container, spec, scope, &path, errors);
        restart_policy(container, &path, errors);
        unique_name(container, regular.iter().chain(&init[..index]), &path, errors);
        host_ports(std::slice::from_ref(container), &list, errors);
        match text(container, &["restartPolicy"]) {
            "Always" => probes::probes_and_hooks(container, grace, os, &path, errors),
            _ => probes::forbidden_in_init(container, &path, errors),
        }
    }
    ephemeral(spec, scope, path, errors);
}

/// `ephemeralContainers` of a pod spec.
fn ephemeral(spec: &Value, scope: Scope, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let ephemeral = items(spec, &["ephemeralContainers"]);
    let others = || items(spec, &["containers"]).iter().chain(items(spec, &["initContainers"]));
    for (index, container) in ephemeral.iter().enumerate() {
        let list = path.child("ephemeralContainers");
        let path = list.index(index);
        common(container, spec, scope, &path, errors);
        unique_name(container, others().chain(&ephemeral[..index]), &path, errors);
        let target = text(container, &["targetContainerName"]);
        if !target.is_empty() && !others().any(|other| text(other, &["name"]) == target) {
            path.child("targetContainerName").not_found(errors, target);
        }
        for (field, _) in entries(container, &[]).filter(|(field, _)| !EPHEMERAL_FIELDS.contains(&field.as_str())) {
            if is_set(container, &[field]) {
                path.child(field).forbidden(errors, WHY);
            }
        }
        for (index, mount) in items(container, &["volumeMounts"]).iter().enumerate() {
            let mounts = path.child("volumeMounts");
            let path = mounts.index(index);
            for field in ["subPath", "subPathExpr"].iter().filter(|field| is_set(mount, &[field])) {
                path.child(field).forbidden(errors, WHY);
            }
        }
    }
}

fn unique_name<'a>(
    container: &Value,
    mut earlier: impl Iterator<Item = &'a Value>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let name = text(container, &["name"]);
    if earlier.any(|other| text(other, &["name"]) == name) {
        path.child("name").duplicate(errors, name);
    }
}

/// What all sorts of containers check alike.
fn common(container: &Value, spec: &Value, scope: Scope, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match text(container, &["name"]) {
        "" => path.child("name").required(errors, ""),
        name => path.child("name").check(errors, name, formats::label(name)),
    }
    let image = text(container, &["image"]);
    if image.is_empty() {
        path.child("image").required(errors, "");
    }
    let policy = text(container, &["terminationMessagePolicy"]);
    path.child("terminationMessagePolicy").required_one_of(errors, policy, &["File", "FallbackToLogsOnError"]);
    ports(container, &path.child("ports"), errors);
    env::environment(container, path, errors);
    mounts(container, spec, &path.child("volumeMounts"), errors);
    devices(container, spec, &path.child("volumeDevices"), errors);
    let policy = text(container, &["imagePullPolicy"]);
    path.child("imagePullPolicy").required_one_of(errors, policy, &["Always", "IfNotPresent", "Never"]);
    if let Some(found) = at(container, &["resources"]) {
        resources::container_resources(found, items(spec, &["resourceClaims"]), &path.child("resources"), errors);
    }
    resize_policy(container, spec, &path.child("resizePolicy"), errors);
    if let Some(context) = at(container, &["securityContext"]) {
        security::container_context(context, spec, &path.child("securityContext"), errors);
    }
    if scope == Scope::Pod && image.trim() != image {
        path.child("image").invalid(errors, image, "must not have leading or trailing whitespace");
    }
}

fn restart_policy(container: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules = items(container, &["restartPolicyRules"]);
    match text(container, &["restartPolicy"]) {
        "" if !rules.is_empty() => {
            path.child("restartPolicy").required(errors, "must specify restartPolicy when restart rules are used");
        }
        "" => {}
        policy => path.child("restartPolicy").one_of(errors, policy, &["Always", "Never", "OnFailure"]),
    }
    for (index, rule) in rules.iter().enumerate() {
        let list = path.child("restartPolicyRules");
        let path = list.index(index);
        path.child("action").one_of(errors, text(rule, &["action"]), &["Restart", "RestartAllContainers"]);
        match at(rule, &["exitCodes"]) {
            None => path.child("exitCodes").required(errors, "must be specified"),
            Some(codes) => {
                let exit_codes = path.child("exitCodes");
                exit_codes.child("operator").one_of(errors, text(codes, &["operator"]), &["In", "NotIn"]);
            }
        }
    }
}

fn ports(container: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let ports = items(container, &["ports"]);
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, &["name"]);
        if !name.is_empty() {
            let wrong = formats::port_name(name);
            let earlier = ports[..index].iter().any(|earlier| text(earlier, &["name"]) == name);
            match wrong.is_empty() {
                true if earlier => path.child("name").duplicate(errors, name),
                _ => path.child("name").check(errors, name, wrong),
            }
        }
        match int(port, &["containerPort"]).unwrap_or(0) {
            0 => path.child("containerPort").required(errors, ""),
            number => path.child("containerPort").check_number(errors, number, formats::port_number(number)),
        }
        match int(port, &["hostPort"]).unwrap_or(0) {
            0 => {}
            number => path.child("hostPort").check_number(errors, number, formats::port_number(number)),
        }
        path.child("protocol").required_one_of(errors, text(port, &["protocol"]), &["SCTP", "TCP", "UDP"]);
    }
}

/// Host ports must be unique among the containers that run at the same time.
fn host_ports(containers: &[Value], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut seen: Vec<String> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        for (port_index, port) in items(container, &["ports"]).iter().enumerate() {
            let Some(number) = int(port, &["hostPort"]).filter(|number| *number != 0) else { continue };
            let key = format!("{}/{}/{number}", text(port, &["protocol"]), text(port, &["hostIP"]));
            if seen.contains(&key) {
                path.index(index).child("ports").index(port_index).child("hostPort").duplicate(errors, key.as_str());
            }
            seen.push(key);
        }
    }
}

fn volume<'a>(spec: &'a Value, name: &str) -> Option<&'a Value> {
    items(spec, &["volumes"]).iter().find(|volume| text(volume, &["name"]) == name)
}

fn mounts(container: &Value, spec: &Value, list: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mounts = items(container, &["volumeMounts"]);
    let devices = items(container, &["volumeDevices"]);
    for (index, mount) in mounts.iter().enumerate() {
        let path = list.index(index);
        let (name, mount_path) = (text(mount, &["name"]), text(mount, &["mountPath"]));
        if name.is_empty() {
            path.child("name").required(errors, "");
        }
        if volume(spec, name).is_none() {
            path.child("name").not_found(errors, name);
        }
        if mount_path.is_empty() {
            path.child("mountPath").required(errors, "");
        }
        if mounts[..index].iter().any(|earlier| text(earlier, &["mountPath"]) == mount_path) {
            path.child("mountPath").invalid(errors, mount_path, "must be unique");
        }
        if devices.iter().any(|device| text(device, &["name"]) == name) {
            path.child("name").invalid(errors, name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| text(device, &["devicePath"]) == mount_path) {
            path.child("mountPath").invalid(errors, mount_path, "must not already exist as a path in volumeDevices");
        }
        sub_paths(mount, &path, list, errors);
        propagation(mount, container, &list.child("mountPropagation"), errors);
    }
}

fn sub_paths(mount: &Value, path: &Path<'_>, list: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (sub_path, expression) = (text(mount, &["subPath"]), text(mount, &["subPathExpr"]));
    // Upstream reports what is wrong with these two at the list, not at the item.
    if !sub_path.is_empty() {
        volumes::descending_path(sub_path, &list.child("subPath"), errors);
    }
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            path.child("subPathExpr").invalid(errors, expression, why);
        }
        volumes::descending_path(expression, &list.child("subPathExpr"), errors);
    }
}

fn propagation(mount: &Value, container: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(mode) = at(mount, &["mountPropagation"]).and_then(Value::as_str) else { return };
    path.one_of(errors, mode, &["Bidirectional", "HostToContainer", "None"]);
    if mode == "Bidirectional" && !truth(container, &["securityContext", "privileged"]) {
        path.forbidden(errors, "Bidirectional mount propagation is available only to privileged containers");
    }
}

fn devices(container: &Value, spec: &Value, list: &Path<'_>, errors: &mut Vec<FieldError>) {
    let devices = items(container, &["volumeDevices"]);
    for (index, device) in devices.iter().enumerate() {
        let path = list.index(index);
        let (name, device_path) = (text(device, &["name"]), text(device, &["devicePath"]));
        if name.is_empty() {
            path.child("name").required(errors, "");
        }
        let earlier = |field: &str, value: &str| devices[..index].iter().any(|other| text(other, &[field]) == value);
        if earlier("name", name) {
            path.child("name").invalid(errors, name, "must be unique");
        }
        match volume(spec, name) {
            None => path.child("name").not_found(errors, name),
            Some(volume) if volume.get("persistentVolumeClaim").is_none() && volume.get("ephemeral").is_none() => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                path.child("name").invalid(errors, name, why);
            }
            Some(_) => {}
        }
        if device_path.is_empty() {
            path.child("devicePath").required(errors, "");
        }
        if earlier("devicePath", device_path) {
            path.child("devicePath").invalid(errors, device_path, "must be unique");
        }
        if device_path.split('/').any(|part| part == "..") {
            path.child("devicePath").invalid(errors, device_path, "can not contain backsteps ('..')");
        }
    }
}

fn resize_policy(container: &Value, spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let policies = items(container, &["resizePolicy"]);
    for (index, policy) in policies.iter().enumerate() {
        let path = path.index(index);
        let resource = text(policy, &["resourceName"]);
        if policies[..index].iter().any(|earlier| text(earlier, &["resourceName"]) == resource) {
            path.duplicate(errors, resource);
        }
        path.child("resourceName").required_one_of(errors, resource, &["cpu", "memory"]);
        let restart = text(policy, &["restartPolicy"]);
        path.child("restartPolicy").required_one_of(errors, restart, &["NotRequired", "RestartContainer"]);
        if text(spec, &["restartPolicy"]) == "Never" && restart == "RestartContainer" {
            path.child("restartPolicy").invalid(
                errors,
                restart,
                "must be 'NotRequired' when `restartPolicy` is 'Never'",
            );
        }
    }
}
