//! What happens to `metadata` and `status` on every write, and what every kind's metadata must look like.
//!
//! Not the namespace and not `generateName`: the API server knows the request's namespace and draws the random suffix. The
//! invariant: what only the server may set never comes from a client.

use kedge_meta::{FieldError, format_time};
use serde_json::Value;

use crate::formats;
use crate::kind::Kind;
use crate::path::Path;
use crate::strategy::{NameRule, UnsupportedField, WriteContext};
use crate::value::{at, child, entries, field_text, int, is_set, items, keep, remove, set, text, truth};

/// The most that an object's annotations may hold, keys and values together, in bytes.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Fields of metadata that only the server sets.
const SERVER_SET: &[&str] = &["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];

pub(crate) fn prepare_create(kind: &Kind, object: &mut Value, context: &WriteContext<'_>) {
    if kind.has_status() && !kind.strategy.keeps_status_on_create() {
        for field in kind.strategy.status_fields() {
            remove(object, field);
        }
    }
    let Some(metadata) = child(object, "metadata") else { return };
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion", "generation"] {
        remove(metadata, field);
    }
    set(metadata, "uid", context.uid);
    set(metadata, "creationTimestamp", format_time(context.now));
    if kind.strategy.has_generation() {
        set(metadata, "generation", 1);
    }
}

pub(crate) fn prepare_update(kind: &Kind, new: &mut Value, old: &Value, subresource: &str) {
    match subresource {
        "" if kind.has_status() => kind.strategy.status_fields().iter().for_each(|field| keep(new, old, field)),
        "status" => keep_all_but_status(kind, new, old),
        _ => {}
    }
    let Some(metadata) = child(new, "metadata") else { return };
    for field in SERVER_SET {
        // A client may leave these out; it may not change them, which validation reports.
        if !is_set(metadata, &[field]) {
            keep(metadata, &old["metadata"], field);
        }
    }
    remove(metadata, "selfLink");
    keep(metadata, &old["metadata"], "generation");
}

fn keep_all_but_status(kind: &Kind, new: &mut Value, old: &Value) {
    let own = |field: &str| {
        matches!(field, "apiVersion" | "kind" | "metadata") || kind.strategy.status_fields().contains(&field)
    };
    if let Some(fields) = new.as_object_mut() {
        fields.retain(|field, _| own(field) || old.get(field).is_some());
    }
    for (field, value) in old.as_object().into_iter().flatten().filter(|(field, _)| !own(field)) {
        if new.get(field) != Some(value) {
            set(new, field, value.clone());
        }
    }
}

/// Counts `metadata.generation` up where the desired state has changed.
pub(crate) fn count_generation(kind: &Kind, new: &mut Value, old: &Value) {
    if !kind.strategy.has_generation() {
        return;
    }
    let changed = kind.strategy.is_new_generation(new, old);
    let generation = int(old, &["metadata", "generation"]).unwrap_or(0) + i64::from(changed);
    if generation > 0
        && let Some(metadata) = child(new, "metadata")
    {
        set(metadata, "generation", generation);
    }
}

pub(crate) fn validate_create(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("metadata");
    let metadata = &object["metadata"];
    let generate_name = text(metadata, &["generateName"]);
    if !generate_name.is_empty() {
        name_errors(kind.strategy.name_rule(), generate_name, true, &path.child("generateName"), &mut errors);
    }
    match text(metadata, &["name"]) {
        "" => path.child("name").required(&mut errors, "name or generateName is required"),
        name => name_errors(kind.strategy.name_rule(), name, false, &path.child("name"), &mut errors),
    }
    namespace_errors(kind, text(metadata, &["namespace"]), &path.child("namespace"), &mut errors);
    shared_errors(metadata, &path, &mut errors);
    finalizer_errors(metadata, &path.child("finalizers"), &mut errors);
    errors
}

/// What is wrong with the metadata of an object that lies within another one, of any kind. Paths begin with `metadata`.
pub fn embedded_metadata_errors(metadata: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("metadata");
    for (field, is_prefix) in [("generateName", true), ("name", false)] {
        let name = text(metadata, &[field]);
        if !name.is_empty() {
            name_errors(NameRule::PathSegment, name, is_prefix, &path.child(field), &mut errors);
        }
    }
    let namespace = text(metadata, &["namespace"]);
    if !namespace.is_empty() {
        path.child("namespace").check(&mut errors, namespace, formats::label(namespace));
    }
    shared_errors(metadata, &path, &mut errors);
    finalizer_errors(metadata, &path.child("finalizers"), &mut errors);
    errors
}

pub(crate) fn validate_update(kind: &Kind, new: &Value, old: &Value) -> Vec<FieldError> {
    let _ = kind;
    let mut errors = Vec::new();
    let path = Path::root("metadata");
    let (new, old) = (&new["metadata"], &old["metadata"]);
    if is_set(old, &["deletionTimestamp"]) {
        new_finalizer_errors(new, old, &path.child("finalizers"), &mut errors);
    }
    for field in ["name", "namespace"].iter().chain(SERVER_SET) {
        path.child(field).immutable(&mut errors, at(new, &[field]), at(old, &[field]));
    }
    shared_errors(new, &path, &mut errors);
    errors
}

fn name_errors(rule: NameRule, name: &str, prefix: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    // What is generated from a prefix never ends with the prefix's dash.
    let masked = match name.strip_suffix('-') {
        Some(rest) if prefix && !rest.is_empty() => format!("{}a", &rest[..rest.len() - last_char_len(rest)]),
        _ => name.to_owned(),
    };
    let wrong = match rule {
        NameRule::Subdomain => formats::subdomain(&masked),
        NameRule::Label => formats::label(&masked),
        NameRule::Label1035 => formats::label_1035(&masked),
        NameRule::PathSegment | NameRule::Own if prefix => formats::path_segment_prefix(name),
        NameRule::PathSegment | NameRule::Own => formats::path_segment(name),
    };
    path.check(errors, name, wrong);
}

fn last_char_len(text: &str) -> usize {
    text.chars().next_back().map_or(0, char::len_utf8)
}

fn namespace_errors(kind: &Kind, namespace: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match (kind.namespaced, namespace) {
        (true, "") => path.required(errors, ""),
        (true, _) => path.check(errors, namespace, formats::label(namespace)),
        (false, "") => {}
        (false, _) => path.forbidden(errors, "not allowed on this type"),
    }
}

/// What creates and updates check alike.
fn shared_errors(metadata: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    label_errors(metadata, "labels", path, errors);
    annotation_errors(metadata, &path.child("annotations"), errors);
    owner_errors(metadata, &path.child("ownerReferences"), errors);
}

/// What is wrong with the labels in the map `field` of `holder`.
pub(crate) fn label_errors(holder: &Value, field: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (key, value) in entries(holder, &[field]) {
        let path = path.child(field);
        let value = value.as_str().unwrap_or_default();
        path.check(errors, key, formats::qualified_name(key));
        path.check(errors, value, formats::label_value(value));
    }
}

/// What is wrong with annotations.
pub(crate) fn annotation_errors(metadata: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for (key, value) in entries(metadata, &["annotations"]) {
        size += key.len() + value.as_str().map_or(0, str::len);
        path.check(errors, key, formats::qualified_name(&key.to_lowercase()));
    }
    if size > ANNOTATIONS_LIMIT {
        path.too_long(errors, ANNOTATIONS_LIMIT);
    }
}

fn owner_errors(metadata: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let references = items(metadata, &["ownerReferences"]);
    let mut first_controller: Option<String> = None;
    for (index, reference) in references.iter().enumerate() {
        let path = path.index(index);
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(reference, &[field]).is_empty() {
                path.child(field).required(errors, "must not be empty");
            }
        }
        let api_version = text(reference, &["apiVersion"]);
        if api_version.matches('/').count() > 1 || api_version.ends_with('/') {
            let why = "must be <group>/<version> or <version>";
            path.child("apiVersion").invalid(errors, api_version, why);
        }
        if api_version == "v1" && text(reference, &["kind"]) == "Event" {
            path.invalid(errors, reference.clone(), "/v1, Kind=Event is disallowed from being an owner");
        }
    }
    for reference in references.iter().filter(|reference| truth(reference, &["controller"])) {
        let name = format!("{}/{}", text(reference, &["kind"]), text(reference, &["name"]));
        match &first_controller {
            None => first_controller = Some(name),
            Some(first) => {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                );
                path.invalid(errors, metadata["ownerReferences"].clone(), &why);
            }
        }
    }
}

fn finalizer_errors(metadata: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let finalizers = items(metadata, &["finalizers"]);
    for finalizer in finalizers {
        let finalizer = finalizer.as_str().unwrap_or_default();
        path.check(errors, finalizer, formats::qualified_name(finalizer));
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        path.invalid(errors, metadata["finalizers"].clone(), why);
    }
}

fn new_finalizer_errors(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let known = items(old, &["finalizers"]);
    let mut added: Vec<&str> =
        items(new, &["finalizers"]).iter().filter(|name| !known.contains(name)).filter_map(Value::as_str).collect();
    added.sort_unstable();
    added.dedup();
    if !added.is_empty() {
        let list: Vec<String> = added.iter().map(|name| format!("{name:?}")).collect();
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            list.join(", ")
        );
        path.forbidden(errors, &why);
    }
}

pub(crate) fn field(kind: &Kind, object: &Value, path: &str) -> Result<String, UnsupportedField> {
    check_field(kind, path)?;
    Ok(match path {
        "metadata.name" | "metadata.namespace" => field_text(object, path),
        _ => kind.strategy.field(object, path),
    })
}

pub(crate) fn check_field(kind: &Kind, path: &str) -> Result<(), UnsupportedField> {
    if matches!(path, "metadata.name" | "metadata.namespace") || kind.strategy.has_field(path) {
        return Ok(());
    }
    Err(UnsupportedField(kind.strategy.unsupported_field(path)))
}
