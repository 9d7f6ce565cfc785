//! What kinds with a selector and a pod template share: their defaults, validation, status counts and cells.
//!
//! The invariant: a selector selects the pods of its own template.

use kedge_meta::{FieldError, LabelSelector};
use serde_json::{Value, json};

use crate::formats;
use crate::path::Path;
use crate::pod_spec::{default_pod_spec, label_selector_errors, pod_warnings, validate_template};
use crate::value::{at, at_mut, child, fill, int, is_set, text};

pub(crate) const SPEC: Path<'static> = Path::root("spec");
pub(crate) const STATUS: Path<'static> = Path::root("status");

/// Where the pod spec of a template lies.
pub(crate) const TEMPLATE_SPEC: &[&str] = &["spec", "template", "spec"];

/// Fills in the defaults of `spec.template`, and a status with zeros in the fields that are always written.
pub(crate) fn default_workload(object: &mut Value, zeros: &[&str]) {
    if let Some(spec) = at_mut(object, TEMPLATE_SPEC) {
        default_pod_spec(spec);
    }
    if let Some(template) = at_mut(object, &["spec", "template"]) {
        fill(template, "metadata", json!({}));
    }
    if let Some(status) = child(object, "status") {
        zeros.iter().for_each(|field| fill(status, field, 0));
    }
}

/// Fills a number in the spec.
pub(crate) fn fill_spec(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(spec) = child(object, "spec") {
        fill(spec, field, value);
    }
}

/// What is wrong with `spec.selector` and whether it selects `spec.template`. `kind` is the lower-case kind for the text
/// about an empty selector.
pub(crate) fn selector_errors(spec: &Value, kind: &str, errors: &mut Vec<FieldError>) {
    let path = SPEC.child("selector");
    match at(spec, &["selector"]) {
        None => return path.required(errors, ""),
        Some(selector) => {
            label_selector_errors(selector, &path, errors);
            if !is_set(selector, &["matchLabels"]) && !is_set(selector, &["matchExpressions"]) {
                path.invalid(errors, selector.clone(), &format!("empty selector is invalid for {kind}"));
            }
        }
    }
    template_labels(spec, errors);
}

/// Whether the selector selects the template.
pub(crate) fn template_labels(spec: &Value, errors: &mut Vec<FieldError>) {
    let labels = at(spec, &["template", "metadata", "labels"]);
    let get = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    if LabelSelector::from_object(&spec["selector"]).is_some_and(|selector| !selector.matches_with(get)) {
        let template = SPEC.child("template");
        let metadata = template.child("metadata");
        let why = "`selector` does not match template `labels`";
        metadata.child("labels").invalid(errors, labels.cloned().unwrap_or(Value::Null), why);
    }
}

/// What is wrong with `spec.template` of a kind whose pods always restart. `kind` is the kind for the texts.
pub(crate) fn restarting_template_errors(spec: &Value, kind: &str, errors: &mut Vec<FieldError>) {
    let path = SPEC.child("template");
    validate_template(&spec["template"], &path, errors);
    let path = path.child("spec");
    path.child("restartPolicy").one_of(errors, text(spec, &["template", "spec", "restartPolicy"]), &["Always"]);
    if at(spec, &["template", "spec", "activeDeadlineSeconds"]).is_some() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        path.child("activeDeadlineSeconds").forbidden(errors, &why);
    }
}

/// Warnings about `spec.template`.
pub(crate) fn template_warnings(object: &Value) -> Vec<String> {
    let template = SPEC.child("template");
    pod_warnings(&object["spec"]["template"]["spec"], "", &template.child("spec"))
}

/// Numbers of `holder` that may not be below zero.
pub(crate) fn not_negative(holder: &Value, fields: &[&str], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for field in fields {
        if let Some(number) = int(holder, &[field]) {
            path.child(field).not_negative(errors, number);
        }
    }
}

/// Counts of a status that may not be above another count of it; `of` is how the text names the other.
pub(crate) fn not_above(status: &Value, fields: &[&str], limit: &str, of: &str, errors: &mut Vec<FieldError>) {
    let most = int(status, &[limit]).unwrap_or(0);
    for field in fields {
        let count = int(status, &[field]).unwrap_or(0);
        if count > most {
            STATUS.child(field).invalid(errors, count, &format!("cannot be greater than {of}"));
        }
    }
}

/// What is wrong with the status counts of Deployments, ReplicaSets and their like.
pub(crate) fn replica_counts(status: &Value, counts: &[&str], errors: &mut Vec<FieldError>) {
    not_negative(status, &["replicas"], &STATUS, errors);
    not_negative(status, counts, &STATUS, errors);
    not_negative(status, &["observedGeneration", "collisionCount"], &STATUS, errors);
    not_above(status, counts, "replicas", "status.replicas", errors);
    not_above(status, &["availableReplicas"], "readyReplicas", "readyReplicas", errors);
}

/// A whole number or a percentage, not negative.
pub(crate) fn int_or_percent(value: Option<&Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match value {
        Some(Value::String(text)) => path.check(errors, text, formats::percent(text)),
        Some(other) => path.not_negative(errors, other.as_i64().unwrap_or(0)),
        None => {}
    }
}

/// A percentage that is above one hundred.
pub(crate) fn at_most_all(value: Option<&Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(Value::String(text)) = value
        && formats::percent(text).is_empty()
        && amount(value) > 100
    {
        path.invalid(errors, text.as_str(), "must not be greater than 100%");
    }
}

/// The number in a whole number or percentage; zero where it is absent.
pub(crate) fn amount(value: Option<&Value>) -> i64 {
    match value {
        Some(Value::String(text)) => text.strip_suffix('%').and_then(|digits| digits.parse().ok()).unwrap_or(0),
        other => other.and_then(Value::as_i64).unwrap_or(0),
    }
}
