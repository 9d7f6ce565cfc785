//! What policies and bindings match: `MatchResources` and its rules.

use kedge_meta::FieldError;
use serde_json::Value;

use crate::path::Path;
use crate::pod_spec::label_selector_errors;
use crate::value::{at, fill, is_set, items, items_mut, text, texts};

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

/// Fills in what a `MatchResources` leaves out.
pub(super) fn default_match(resources: &mut Value) {
    fill(resources, "matchPolicy", "Equivalent");
    fill(resources, "namespaceSelector", serde_json::json!({}));
    fill(resources, "objectSelector", serde_json::json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        items_mut(resources, &[list]).iter_mut().for_each(|rule| fill(rule, "scope", "*"));
    }
}

/// Appends what is wrong with a `MatchResources`.
pub(super) fn match_errors(resources: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let policy = text(resources, &["matchPolicy"]);
    path.child("matchPolicy").required_one_of(errors, policy, &["Equivalent", "Exact"]);
    for field in ["namespaceSelector", "objectSelector"] {
        match at(resources, &[field]) {
            Some(selector) => label_selector_errors(selector, &path.child(field), errors),
            None => path.child(field).required(errors, ""),
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in items(resources, &[field]).iter().enumerate() {
            let list = path.child(field);
            rule_errors(rule, &list.index(index), errors);
        }
    }
}

fn rule_errors(rule: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let names: Vec<&str> = texts(rule, &["resourceNames"]).collect();
    for (index, name) in names.iter().enumerate() {
        let list = path.child("resourceNames");
        let path = list.index(index);
        if *name == "." || *name == ".." {
            path.invalid(errors, *name, &format!("may not be '{name}'"));
        }
        for sign in ["/", "%"].into_iter().filter(|sign| name.contains(sign)) {
            path.invalid(errors, *name, &format!("may not contain '{sign}'"));
        }
        if names[..index].contains(name) {
            path.duplicate(errors, *name);
        }
    }
    let operations: Vec<&str> = texts(rule, &["operations"]).collect();
    if operations.is_empty() {
        path.child("operations").required(errors, "");
    }
    let lists = [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")];
    for (field, what) in lists {
        if field != "operations" && !is_set(rule, &[field]) {
            path.child(field).required(errors, "");
        }
        let all: Vec<&str> = texts(rule, &[field]).collect();
        if all.len() > 1 && all.contains(&"*") {
            let why = format!("if '*' is present, must not specify other {what}");
            path.child(field).invalid(errors, rule[field].clone(), &why);
        }
    }
    for (index, operation) in operations.iter().enumerate() {
        path.child("operations").index(index).one_of(errors, operation, &OPERATIONS);
    }
    for (index, _) in texts(rule, &["apiVersions"]).enumerate().filter(|(_, version)| version.is_empty()) {
        path.child("apiVersions").index(index).required(errors, "");
    }
    if !is_set(rule, &["resources"]) {
        path.child("resources").required(errors, "");
    }
    let scope = text(rule, &["scope"]);
    if !scope.is_empty() {
        path.child("scope").one_of(errors, scope, &["*", "Cluster", "Namespaced"]);
    }
}
