//! Validation of environment variables, their sources, and the field references that downward API volumes share.

use kedge_meta::FieldError;
use serde_json::Value;

use crate::formats;
use crate::path::Path;
use crate::value::{at, is_set, items, text};

/// Fields of a pod that an environment variable may name.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of a pod that a downward API file may name.
pub(super) const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Fields that the conversion of field labels knows; others are an error of conversion.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Amounts of a container that a variable or a file may name.
const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// `env` and `envFrom` of a container.
pub(super) fn environment(container: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (index, variable) in items(container, &["env"]).iter().enumerate() {
        let list = path.child("env");
        let path = list.index(index);
        match text(variable, &["name"]) {
            "" => path.child("name").required(errors, ""),
            name => path.child("name").check(errors, name, formats::env_name(name)),
        }
        if let Some(source) = at(variable, &["valueFrom"]) {
            value_source(source, text(variable, &["value"]), &path.child("valueFrom"), errors);
        }
    }
    for (index, source) in items(container, &["envFrom"]).iter().enumerate() {
        env_from(source, &path.child("envFrom"), index, errors);
    }
}

fn value_source(source: &Value, value: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut sources = 0;
    if let Some(reference) = at(source, &["fieldRef"]) {
        sources += 1;
        field_reference(reference, ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(reference) = at(source, &["resourceFieldRef"]) {
        sources += 1;
        resource_reference(reference, false, &path.child("resourceFieldRef"), errors);
    }
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = at(source, &[kind]) {
            sources += 1;
            key_reference(reference, &path.child(kind), errors);
        }
    }
    if let Some(reference) = at(source, &["fileKeyRef"]) {
        sources += 1;
        for field in ["volumeName", "path", "key"] {
            if text(reference, &[field]).is_empty() {
                path.child("fileKeyRef").child(field).required(errors, "");
            }
        }
    }
    match sources {
        0 => path.invalid(
            errors,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if !value.is_empty() => path.invalid(errors, "", "may not be specified when `value` is not empty"),
        1 => {}
        _ => path.invalid(errors, "", "may not have more than one field specified at a time"),
    }
}

fn env_from(source: &Value, list: &Path<'_>, index: usize, errors: &mut Vec<FieldError>) {
    let path = list.index(index);
    let prefix = text(source, &["prefix"]);
    if !prefix.is_empty() {
        path.child("prefix").check(errors, prefix, formats::env_name(prefix));
    }
    let mut sources = 0;
    for kind in ["configMapRef", "secretRef"] {
        if let Some(reference) = at(source, &[kind]) {
            sources += 1;
            let reference_path = path.child(kind);
            match text(reference, &["name"]) {
                "" => reference_path.child("name").required(errors, ""),
                name => reference_path.child("name").check(errors, name, formats::subdomain(name)),
            }
        }
    }
    match sources {
        0 => list.invalid(errors, "", "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => list.invalid(errors, "", "may not have more than one field specified at a time"),
    }
}

fn key_reference(reference: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let name = text(reference, &["name"]);
    path.child("name").check(errors, name, formats::subdomain(name));
    match text(reference, &["key"]) {
        "" => path.child("key").required(errors, ""),
        key => path.child("key").check(errors, key, formats::config_key(key)),
    }
}

/// A reference to a field of the pod; `allowed` are the fields besides single labels and annotations.
pub(super) fn field_reference(reference: &Value, allowed: &[&str], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if text(reference, &["apiVersion"]).is_empty() {
        return path.child("apiVersion").required(errors, "");
    }
    let field = text(reference, &["fieldPath"]);
    if field.is_empty() {
        return path.child("fieldPath").required(errors, "");
    }
    let subscripted = field.strip_suffix("']").and_then(|field| field.split_once("['"));
    if let Some((field, key)) = subscripted {
        return match field {
            "metadata.annotations" => path.check(errors, key, formats::qualified_name(&key.to_lowercase())),
            "metadata.labels" => path.check(errors, key, formats::qualified_name(key)),
            _ => unconvertible(field, path, errors),
        };
    }
    if !KNOWN_FIELDS.contains(&field) {
        unconvertible(field, path, errors);
    } else {
        path.child("fieldPath").one_of(errors, field, allowed);
    }
}

fn unconvertible(field: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let why = format!("error converting fieldPath: field label not supported: {field}");
    path.child("fieldPath").invalid(errors, field, &why);
}

/// A reference to an amount of a container. In volumes the container must be named.
pub(super) fn resource_reference(reference: &Value, in_volume: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let resource = text(reference, &["resource"]);
    if in_volume && !is_set(reference, &["containerName"]) {
        path.child("containerName").required(errors, "");
    } else if resource.is_empty() {
        path.child("resource").required(errors, "");
    } else if !resource.starts_with("limits.hugepages-") && !resource.starts_with("requests.hugepages-") {
        path.child("resource").one_of(errors, resource, RESOURCE_FIELDS);
    }
}
