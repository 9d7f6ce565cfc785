//! Validation of what steers the scheduler: tolerations, affinity, spreading, and the selectors that other kinds share.

use kedge_meta::FieldError;
use serde_json::Value;

use super::label_keys::label_key_errors;
use crate::formats;
use crate::metadata::label_errors;
use crate::path::Path;
use crate::value::{at, int, is_set, items, text, texts};

const IN_OR_NOT_IN: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const EXISTS: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";

/// Tolerations of a pod or a runtime class.
pub(crate) fn tolerations(holder: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (index, toleration) in items(holder, &["tolerations"]).iter().enumerate() {
        let list = path.child("tolerations");
        toleration_errors(toleration, &list.index(index), errors);
    }
}

fn toleration_errors(toleration: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let field = |name: &'static str| text(toleration, &[name]);
    let (key, operator, effect, value) = (field("key"), field("operator"), field("effect"), field("value"));
    if !key.is_empty() {
        path.child("key").check(errors, key, formats::qualified_name(key));
    } else if operator != "Exists" {
        let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        path.child("operator").invalid(errors, operator, why);
    }
    if at(toleration, &["tolerationSeconds"]).is_some() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        path.child("effect").invalid(errors, effect, why);
    }
    match operator {
        "" | "Equal" => {
            let wrong = formats::label_value(value);
            if !wrong.is_empty() {
                path.child("operator").invalid(errors, value, &wrong.join(";"));
            }
        }
        "Exists" if !value.is_empty() => {
            path.child("operator").invalid(errors, value, "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        _ => path.child("operator").one_of(errors, operator, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        path.child("effect").one_of(errors, effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
    }
}

/// `affinity` of a pod spec.
pub(super) fn affinity(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    if let Some(node) = at(spec, &["affinity", "nodeAffinity"]) {
        let path = path.child("nodeAffinity");
        if let Some(selector) = at(node, &[REQUIRED]) {
            node_selector_errors(selector, &path.child(REQUIRED), errors);
        }
        for (index, term) in items(node, &[PREFERRED]).iter().enumerate() {
            let list = path.child(PREFERRED);
            let path = list.index(index);
            weight(term, &path, errors);
            node_selector_term_errors(&term["preference"], &path.child("preference"), errors);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(found) = at(spec, &["affinity", kind]) else { continue };
        let path = path.child(kind);
        for (index, term) in items(found, &[REQUIRED]).iter().enumerate() {
            pod_affinity_term(term, &path.child(REQUIRED).index(index), errors);
        }
        for (index, term) in items(found, &[PREFERRED]).iter().enumerate() {
            let list = path.child(PREFERRED);
            let path = list.index(index);
            weight(term, &path, errors);
            pod_affinity_term(&term["podAffinityTerm"], &path.child("podAffinityTerm"), errors);
        }
    }
}

fn weight(term: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let weight = int(term, &["weight"]).unwrap_or(0);
    if !(1..=100).contains(&weight) {
        path.child("weight").invalid(errors, weight, "must be in the range 1-100");
    }
}

fn pod_affinity_term(term: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for selector in ["labelSelector", "namespaceSelector"] {
        if let Some(found) = at(term, &[selector]) {
            label_selector_errors(found, &path.child(selector), errors);
        }
    }
    for namespace in texts(term, &["namespaces"]) {
        path.child("namespace").check(errors, namespace, formats::label(namespace));
    }
    label_key_errors(term, path, errors);
    let key = text(term, &["topologyKey"]);
    if key.is_empty() {
        path.child("topologyKey").required(errors, "can not be empty");
    }
    path.child("topologyKey").check(errors, key, formats::qualified_name(key));
}

/// A `NodeSelector`: at least one term.
pub(crate) fn node_selector_errors(selector: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let path = path.child("nodeSelectorTerms");
    let terms = items(selector, &["nodeSelectorTerms"]);
    if terms.is_empty() {
        path.required(errors, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        node_selector_term_errors(term, &path.index(index), errors);
    }
}

/// One term of a `NodeSelector`.
pub(crate) fn node_selector_term_errors(term: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (index, requirement) in items(term, &["matchExpressions"]).iter().enumerate() {
        let list = path.child("matchExpressions");
        node_requirement(requirement, &list.index(index), errors);
    }
    for (index, requirement) in items(term, &["matchFields"]).iter().enumerate() {
        let list = path.child("matchFields");
        node_field_requirement(requirement, &list.index(index), errors);
    }
}

fn node_requirement(requirement: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let values = items(requirement, &["values"]);
    match text(requirement, &["operator"]) {
        "In" | "NotIn" if values.is_empty() => path.child("values").required(errors, IN_OR_NOT_IN),
        "Exists" | "DoesNotExist" if !values.is_empty() => path.child("values").forbidden(errors, EXISTS),
        "Gt" | "Lt" if values.len() != 1 => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            path.child("values").required(errors, why);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        operator => path.child("operator").invalid(errors, operator, "not a valid selector operator"),
    }
    key_and_values(requirement, path, errors);
}

fn node_field_requirement(requirement: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match text(requirement, &["operator"]) {
        "In" | "NotIn" if items(requirement, &["values"]).len() == 1 => {}
        "In" | "NotIn" => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            path.child("values").required(errors, why);
        }
        operator => path.child("operator").invalid(errors, operator, "not a valid selector operator"),
    }
    match text(requirement, &["key"]) {
        "metadata.name" => {
            for (index, value) in texts(requirement, &["values"]).enumerate() {
                path.child("values").index(index).check(errors, value, formats::subdomain(value));
            }
        }
        key => path.child("key").invalid(errors, key, "not a valid field selector key"),
    }
}

fn key_and_values(requirement: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let key = text(requirement, &["key"]);
    path.child("key").check(errors, key, formats::qualified_name(key));
    for (index, value) in texts(requirement, &["values"]).enumerate() {
        path.child("values").index(index).check(errors, value, formats::label_value(value));
    }
}

/// A `metav1.LabelSelector`.
pub(crate) fn label_selector_errors(selector: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    label_errors(selector, "matchLabels", path, errors);
    for (index, requirement) in items(selector, &["matchExpressions"]).iter().enumerate() {
        let list = path.child("matchExpressions");
        let path = list.index(index);
        let has_values = is_set(requirement, &["values"]);
        match text(requirement, &["operator"]) {
            "In" | "NotIn" if !has_values => path.child("values").required(errors, IN_OR_NOT_IN),
            "Exists" | "DoesNotExist" if has_values => path.child("values").forbidden(errors, EXISTS),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            operator => path.child("operator").invalid(errors, operator, "not a valid selector operator"),
        }
        key_and_values(requirement, &path, errors);
    }
}

/// `topologySpreadConstraints` of a pod spec.
pub(super) fn spreading(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let constraints = items(spec, &["topologySpreadConstraints"]);
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        path.child("maxSkew").positive(errors, int(constraint, &["maxSkew"]).unwrap_or(0));
        let key = text(constraint, &["topologyKey"]);
        if key.is_empty() {
            path.child("topologyKey").required(errors, "can not be empty");
        }
        let action = text(constraint, &["whenUnsatisfiable"]);
        path.child("whenUnsatisfiable").one_of(errors, action, &["DoNotSchedule", "ScheduleAnyway"]);
        let same =
            |other: &Value| text(other, &["topologyKey"]) == key && text(other, &["whenUnsatisfiable"]) == action;
        if constraints[index + 1..].iter().any(same) {
            let pair = format!("{{{key}, {action}}}");
            path.child("{topologyKey, whenUnsatisfiable}").duplicate(errors, pair);
        }
        if let Some(domains) = int(constraint, &["minDomains"]) {
            path.child("minDomains").positive(errors, domains);
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                path.child("minDomains").invalid(errors, domains, &why);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(value) = at(constraint, &[policy]).and_then(Value::as_str) {
                path.child(policy).one_of(errors, value, &["Honor", "Ignore"]);
            }
        }
        label_key_errors(constraint, &path, errors);
        if let Some(selector) = at(constraint, &["labelSelector"]) {
            label_selector_errors(selector, &path.child("labelSelector"), errors);
        }
    }
}
