//! Validation of a pod's volumes: unique names, exactly one source each, and what each common source needs.

use kedge_meta::FieldError;
use serde_json::Value;

use super::env;
use crate::formats;
use crate::path::Path;
use crate::value::{at, entries, int, is_set, items, text};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// All volumes of a pod spec.
pub(super) fn volumes(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let volumes = items(spec, &["volumes"]);
    for (index, volume) in volumes.iter().enumerate() {
        let list = path.child("volumes");
        let path = list.index(index);
        source(volume, &path, errors);
        match text(volume, &["name"]) {
            "" => path.child("name").required(errors, ""),
            name => {
                path.child("name").check(errors, name, formats::label(name));
                if volumes[..index].iter().any(|earlier| text(earlier, &["name"]) == name) {
                    path.child("name").duplicate(errors, name);
                }
            }
        }
    }
}

fn source(volume: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut sources = 0;
    for (kind, source) in entries(volume, &[]).filter(|(field, _)| *field != "name") {
        sources += 1;
        match sources {
            1 => one_source(kind, source, &path.child(kind), errors),
            _ => path.child(kind).forbidden(errors, "may not specify more than 1 volume type"),
        }
    }
    if sources == 0 {
        path.required(errors, "must specify a volume type");
    }
}

fn one_source(kind: &str, source: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match kind {
        "hostPath" => host_path(source, path, errors),
        "secret" => files(source, "secretName", path, errors),
        "configMap" => files(source, "name", path, errors),
        "persistentVolumeClaim" => require(source, &["claimName"], path, errors),
        "nfs" => nfs(source, path, errors),
        "csi" => require(source, &["driver"], path, errors),
        "ephemeral" if at(source, &["volumeClaimTemplate"]).is_none() => {
            path.child("volumeClaimTemplate").required(errors, "");
        }
        "emptyDir" if at(source, &["sizeLimit"]).is_some_and(is_negative) => {
            path.child("sizeLimit").forbidden(errors, "SizeLimit field must be a valid resource quantity");
        }
        "downwardAPI" => {
            mode(source, "defaultMode", path, errors);
            downward_files(items(source, &["items"]), path, errors);
        }
        "projected" => projected(source, path, errors),
        "image" if !is_set(source, &["reference"]) => path.child("reference").required(errors, ""),
        _ => {}
    }
}

fn is_negative(amount: &Value) -> bool {
    amount.as_str().is_some_and(|text| text.starts_with('-'))
}

fn require(source: &Value, fields: &[&str], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for field in fields.iter().filter(|field| !is_set(source, &[field])) {
        path.child(field).required(errors, "");
    }
}

fn host_path(source: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    const TYPES: &[&str] =
        &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    match text(source, &["path"]) {
        "" => return path.child("path").required(errors, ""),
        host => no_backsteps(host, &path.child("path"), errors),
    }
    path.child("type").one_of(errors, text(source, &["type"]), TYPES);
}

fn nfs(source: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    require(source, &["server", "path"], path, errors);
    let exported = text(source, &["path"]);
    if !exported.starts_with('/') {
        path.child("path").invalid(errors, exported, "must be an absolute path");
    }
}

/// A secret or configMap source, in a volume or projected.
fn files(source: &Value, name: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    require(source, &[name], path, errors);
    mode(source, "defaultMode", path, errors);
    for (index, item) in items(source, &["items"]).iter().enumerate() {
        let list = path.child("items");
        let path = list.index(index);
        require(item, &["key", "path"], &path, errors);
        local_path(text(item, &["path"]), &path.child("path"), errors);
        mode(item, "mode", &path, errors);
    }
}

fn mode(source: &Value, field: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(mode) = int(source, &[field]).filter(|mode| !(0..=0o777).contains(mode)) {
        path.child(field).invalid(errors, mode, FILE_MODE);
    }
}

fn downward_files(files: &[Value], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    // Upstream reports these at the source itself, without the index of the item.
    for file in files {
        require(file, &["path"], path, errors);
        local_path(text(file, &["path"]), &path.child("path"), errors);
        match (at(file, &["fieldRef"]), at(file, &["resourceFieldRef"])) {
            (Some(field), resource) => {
                env::field_reference(field, env::FILE_FIELDS, &path.child("fieldRef"), errors);
                if resource.is_some() {
                    let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    path.invalid(errors, "resource", why);
                }
            }
            (None, Some(resource)) => {
                env::resource_reference(resource, true, &path.child("resourceFieldRef"), errors);
            }
            (None, None) => path.required(errors, "one of fieldRef and resourceFieldRef is required"),
        }
        mode(file, "mode", path, errors);
    }
}

fn projected(source: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    mode(source, "defaultMode", path, errors);
    for (index, one) in items(source, &["sources"]).iter().enumerate() {
        let list = path.child("sources");
        let path = list.index(index);
        for (kind, projection) in entries(one, &[]) {
            projection_errors(kind, projection, &path.child(kind), errors);
        }
        if entries(one, &[]).count() > 1 {
            path.forbidden(errors, "may not specify more than 1 volume type per source");
        }
    }
}

fn projection_errors(kind: &str, projection: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match kind {
        "secret" | "configMap" => files(projection, "name", path, errors),
        "downwardAPI" => downward_files(items(projection, &["items"]), path, errors),
        "serviceAccountToken" => {
            let seconds = int(projection, &["expirationSeconds"]).unwrap_or(0);
            if seconds < 600 {
                path.child("expirationSeconds").invalid(
                    errors,
                    seconds,
                    "may not specify a duration less than 10 minutes",
                );
            }
            if seconds > 1 << 32 {
                path.child("expirationSeconds").invalid(
                    errors,
                    seconds,
                    "may not specify a duration larger than 2^32 seconds",
                );
            }
            match text(projection, &["path"]) {
                "" => path.child("path").required(errors, ""),
                file => local_path(file, &path.child("path"), errors),
            }
        }
        _ => {}
    }
}

/// A path below a volume: relative, without `..`.
pub(super) fn descending_path(target: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if target.starts_with('/') {
        path.invalid(errors, target, "must be a relative path");
    }
    no_backsteps(target, path, errors);
}

/// As [`descending_path`], and no name at its begin that starts with two dots.
fn local_path(target: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    descending_path(target, path, errors);
    if target.starts_with("..") && !target.starts_with("../") {
        path.invalid(errors, target, "must not start with '..'");
    }
}

pub(super) fn no_backsteps(target: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if target.split('/').any(|part| part == "..") {
        path.invalid(errors, target, "must not contain '..'");
    }
}
