//! Validation of resource names and amounts.
//!
//! Not whether a node has them: the scheduler knows.

use kedge_meta::{FieldError, Quantity};
use serde_json::Value;

use crate::formats;
use crate::path::{NEGATIVE, Path};
use crate::value::{at, entries, is_set, items, text};

/// Requests, limits and claims of a container.
pub(super) fn container_resources(resources: &Value, claims: &[Value], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (name, limit) in entries(resources, &["limits"]) {
        let limits = path.child("limits");
        let path = limits.key(name);
        resource_name_errors(name, &path, errors);
        quantity_errors(name, limit, &path, errors);
    }
    for (name, request) in entries(resources, &["requests"]) {
        let requests = path.child("requests");
        let entry = requests.key(name);
        resource_name_errors(name, &entry, errors);
        quantity_errors(name, request, &entry, errors);
        request_within_limit(name, request, at(resources, &["limits", name]), path, errors);
    }
    huge_pages(resources, path, errors);
    for (index, claim) in items(resources, &["claims"]).iter().enumerate() {
        let list = path.child("claims");
        let path = list.index(index);
        match text(claim, &["name"]) {
            "" => path.child("name").required(errors, ""),
            name if !claims.iter().any(|claim| text(claim, &["name"]) == name) => {
                path.child("name").not_found(errors, name);
            }
            _ => {}
        }
    }
}

fn request_within_limit(
    name: &str,
    request: &Value,
    limit: Option<&Value>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let Some(limit) = limit else {
        if !allows_overcommit(name) {
            path.child("limits").required(errors, "Limit must be set for non overcommitable resources");
        }
        return;
    };
    let (Some(wanted), Some(most)) = (parse(request), parse(limit)) else { return };
    let limit = limit.as_str().map_or_else(|| limit.to_string(), str::to_owned);
    if wanted != most && !allows_overcommit(name) {
        let why = format!("must be equal to {name} limit of {limit}");
        path.child("requests").invalid(errors, request.clone(), &why);
    } else if wanted > most {
        let why = format!("must be less than or equal to {name} limit of {limit}");
        path.child("requests").invalid(errors, request.clone(), &why);
    }
}

fn huge_pages(resources: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let has = |test: fn(&str) -> bool| {
        ["limits", "requests"].iter().any(|list| entries(resources, &[list]).any(|(name, _)| test(name)))
    };
    if has(|name| name.starts_with("hugepages-")) && !has(|name| matches!(name, "cpu" | "memory")) {
        path.forbidden(errors, "HugePages require cpu or memory");
    }
}

/// The name of a resource that a container may ask for.
fn resource_name_errors(name: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let wrong = formats::qualified_name(name);
    if !wrong.is_empty() {
        return path.check(errors, name, wrong);
    }
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        path.invalid(errors, name, "must be a standard resource type or fully qualified");
        path.invalid(errors, name, "must be a standard resource for containers");
    } else if name.contains('/')
        && !is_native(name)
        && (name.starts_with("requests.") || name.contains("kubernetes.io/"))
    {
        path.invalid(errors, name, "doesn't follow extended resource name standard");
    }
}

/// An amount: not negative, whole where the resource is counted.
pub(crate) fn quantity_errors(name: &str, amount: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(parsed) = parse(amount) else { return };
    if parsed.is_negative() {
        path.invalid(errors, amount.clone(), NEGATIVE);
    }
    let counted = matches!(
        name,
        "pods"
            | "services"
            | "replicationcontrollers"
            | "resourcequotas"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    ) || (name.contains('/') && !is_native(name));
    if counted && parsed.millis() % 1000 != 0 {
        path.invalid(errors, amount.clone(), "must be an integer");
    }
}

/// Whether a pod-level or node-level amount map has anything negative; `field` names the map in `holder`.
pub(super) fn overhead(holder: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if is_set(holder, &["overhead"]) {
        for (name, amount) in entries(holder, &["overhead"]) {
            let list = path.child("overhead");
            let path = list.key(name);
            resource_name_errors(name, &path, errors);
            quantity_errors(name, amount, &path, errors);
        }
    }
}

fn allows_overcommit(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.starts_with("kubernetes.io/")
}

fn parse(amount: &Value) -> Option<Quantity> {
    match amount {
        Value::String(text) => text.parse().ok(),
        other => other.to_string().parse().ok(),
    }
}
