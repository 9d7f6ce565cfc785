//! Bindings of admission policies.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use super::matching::{default_match, match_errors};
use crate::formats;
use crate::path::Path;
use crate::pod_spec::label_selector_errors;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, at_mut, text, texts};
use crate::workload::SPEC;

/// Of the bindings of both kinds of policies.
pub(super) struct PolicyBinding;

const COLUMNS: &[Column] = &[
    NAME,
    column("PolicyName", "string", "Policy that it binds"),
    column("ParamRef", "string", "Its parameters"),
    AGE,
];

impl Strategy for PolicyBinding {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(resources) = at_mut(object, &["spec", "matchResources"]) {
            default_match(resources);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let policy = text(object, &["spec", "policyName"]);
        match policy.is_empty() {
            true => SPEC.child("policyName").required(errors, ""),
            false => SPEC.child("policyName").check(errors, policy, formats::subdomain(policy)),
        }
        if let Some(reference) = at(object, &["spec", "paramRef"]) {
            reference_errors(reference, &SPEC.child("paramRef"), errors);
        }
        if let Some(resources) = at(object, &["spec", "matchResources"]) {
            match_errors(resources, &SPEC.child("matchResources"), errors);
        }
        if text(object, &["kind"]) == "ValidatingAdmissionPolicyBinding" {
            action_errors(object, errors);
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let reference = at(object, &["spec", "paramRef"]);
        let part = |field: &str| reference.map(|reference| text(reference, &[field])).unwrap_or_default();
        let shown = match (part("name"), part("namespace")) {
            ("", _) => "<unset>".to_owned(),
            (name, "") => format!("*/{name}"),
            (name, namespace) => format!("{namespace}/{name}"),
        };
        let policy = text(object, &["spec", "policyName"]);
        vec![name(object), Value::from(policy), Value::from(shown), age(object, now)]
    }
}

fn reference_errors(reference: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let (name, selector) = (text(reference, &["name"]), at(reference, &["selector"]));
    match (name, selector) {
        ("", None) => path.required(errors, "one of name or selector must be specified"),
        ("", Some(_)) | (_, None) => {}
        (_, Some(_)) => {
            path.child("name").forbidden(errors, EXCLUSIVE);
            path.child("selector").forbidden(errors, EXCLUSIVE);
        }
    }
    if let Some(selector) = selector {
        label_selector_errors(selector, &path.child("selector"), errors);
    }
    let action = text(reference, &["parameterNotFoundAction"]);
    path.child("parameterNotFoundAction").required_one_of(errors, action, &["Deny", "Allow"]);
}

fn action_errors(object: &Value, errors: &mut Vec<FieldError>) {
    let path = SPEC.child("validationActions");
    let actions: Vec<&str> = texts(object, &["spec", "validationActions"]).collect();
    for (index, action) in actions.iter().enumerate() {
        path.index(index).one_of(errors, action, &["Audit", "Deny", "Warn"]);
        if actions[..index].contains(action) {
            path.index(index).duplicate(errors, *action);
        }
    }
    if actions.contains(&"Deny") && actions.contains(&"Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
            response and headers serves no purpose)";
        path.invalid(errors, object["spec"]["validationActions"].clone(), why);
    }
    if actions.is_empty() {
        path.required(errors, "at least one validation action is required");
    }
}
