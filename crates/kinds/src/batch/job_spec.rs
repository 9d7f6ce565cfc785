//! What Jobs and the templates in CronJobs share: defaults and validation of `JobSpec`.

use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::formats;
use crate::path::Path;
use crate::pod_spec::{default_pod_spec, validate_template};
use crate::value::{at, at_mut, fill, int, is_set, items, items_mut, text};
use crate::workload::not_negative;

/// Defaults of a spec, also in a template: those of its pod spec and of the patterns of its failure policy.
pub(super) fn default_nested(spec: &mut Value) {
    if let Some(pod) = at_mut(spec, &["template", "spec"]) {
        default_pod_spec(pod);
    }
    if let Some(template) = at_mut(spec, &["template"]) {
        fill(template, "metadata", json!({}));
    }
    for rule in items_mut(spec, &["podFailurePolicy", "rules"]) {
        items_mut(rule, &["onPodConditions"]).iter_mut().for_each(|pattern| fill(pattern, "status", "True"));
    }
}

/// Defaults of a Job's own spec.
pub(super) fn default_spec(spec: &mut Value) {
    if int(spec, &["completions"]).is_none() && int(spec, &["parallelism"]).is_none() {
        fill(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    let per_index = int(spec, &["backoffLimitPerIndex"]).is_some();
    fill(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    fill(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    fill(spec, "manualSelector", false);
    let replacement = if at(spec, &["podFailurePolicy"]).is_some() { "Failed" } else { "TerminatingOrFailed" };
    fill(spec, "podReplacementPolicy", replacement);
    default_nested(spec);
}

/// What is wrong with a spec, apart from its selector.
pub(super) fn validate(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    const COUNTS: &[&str] = &[
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    not_negative(spec, COUNTS, path, errors);
    let mode = text(spec, &["completionMode"]);
    if !mode.is_empty() {
        path.child("completionMode").one_of(errors, mode, &["NonIndexed", "Indexed"]);
    }
    if mode == "Indexed" {
        indexed(spec, path, errors);
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"].iter().filter(|field| int(spec, &[field]).is_some()) {
            let value = at(spec, &[field]).cloned().unwrap_or(Value::Null);
            path.child(field).invalid(errors, value, "requires indexed completion mode");
        }
    }
    policies(spec, path, errors);
    failure_policy(spec, &path.child("podFailurePolicy"), errors);
    let template = path.child("template");
    validate_template(&spec["template"], &template, errors);
    let restart = text(spec, &["template", "spec", "restartPolicy"]);
    if matches!(restart, "" | "Always") {
        let pod = template.child("spec");
        pod.child("restartPolicy").required(errors, "valid values: \"OnFailure\", \"Never\"");
    } else if restart == "OnFailure" && at(spec, &["podFailurePolicy"]).is_some() {
        let pod = template.child("spec");
        let why = "only \"Never\" is supported when podFailurePolicy is specified";
        pod.child("restartPolicy").invalid(errors, restart, why);
    }
}

fn policies(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(manager) = at(spec, &["managedBy"]).and_then(Value::as_str) {
        path.child("managedBy").check(errors, manager, formats::qualified_name(manager));
        if !manager.contains('/') {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            path.child("managedBy").invalid(errors, manager, why);
        }
    }
    let policy = text(spec, &["podReplacementPolicy"]);
    if !policy.is_empty() {
        path.child("podReplacementPolicy").one_of(errors, policy, &["Failed", "TerminatingOrFailed"]);
        if at(spec, &["podFailurePolicy"]).is_some() && policy == "TerminatingOrFailed" {
            path.child("podReplacementPolicy").one_of(errors, policy, &["Failed"]);
        }
    }
}

fn indexed(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let parallelism = int(spec, &["parallelism"]).unwrap_or(0);
    match int(spec, &["completions"]) {
        None => path.child("completions").required(errors, "when completion mode is Indexed"),
        Some(completions) => {
            if let Some(failed) = int(spec, &["maxFailedIndexes"]).filter(|failed| *failed > completions) {
                path.child("maxFailedIndexes").invalid(errors, failed, "must be less than or equal to completions");
            }
        }
    }
    if parallelism > 100_000 {
        let why = "must be less than or equal to 100000 when completion mode is Indexed";
        path.child("parallelism").invalid(errors, parallelism, why);
    }
    if int(spec, &["maxFailedIndexes"]).is_some() && int(spec, &["backoffLimitPerIndex"]).is_none() {
        path.child("backoffLimitPerIndex").required(errors, "when maxFailedIndexes is specified");
    }
}

fn failure_policy(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (index, rule) in items(spec, &["podFailurePolicy", "rules"]).iter().enumerate() {
        let list = path.child("rules");
        let path = list.index(index);
        const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
        path.child("action").required_one_of(errors, text(rule, &["action"]), ACTIONS);
        let (codes, conditions) = (at(rule, &["onExitCodes"]), is_set(rule, &["onPodConditions"]));
        if codes.is_some() && conditions {
            let why = "specifying both OnExitCodes and OnPodConditions is not supported";
            path.invalid(errors, rule.clone(), why);
        }
        if codes.is_none() && !conditions {
            path.invalid(errors, rule.clone(), "specifying one of OnExitCodes and OnPodConditions is required");
        }
        if let Some(codes) = codes {
            let path = path.child("onExitCodes");
            path.child("operator").required_one_of(errors, text(codes, &["operator"]), &["In", "NotIn"]);
            if !is_set(codes, &["values"]) {
                path.child("values").invalid(errors, Value::Null, "at least one value is required");
            }
        }
    }
}
