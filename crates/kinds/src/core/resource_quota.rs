//! ResourceQuotas.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::formats;
use crate::path::Path;
use crate::pod_spec::quantity_errors;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, entries, items, text, texts};

/// Of resourcequotas.
pub(super) struct ResourceQuota;

const SPEC: Path<'static> = Path::root("spec");

const COLUMNS: &[Column] = &[
    NAME,
    column("Request", "string", "Used and most, of requests and counts"),
    column("Limit", "string", "Used and most, of limits"),
    AGE,
];

/// Resources without a slash that a quota can count.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

impl Strategy for ResourceQuota {
    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        hard(&object["spec"], &SPEC.child("hard"), errors);
        scopes(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        SPEC.child("scopes").immutable(errors, at(new, &["spec", "scopes"]), at(old, &["spec", "scopes"]));
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        let status = Path::root("status");
        hard(&new["status"], &status.child("hard"), errors);
        for (resource, amount) in entries(new, &["status", "used"]) {
            let used = status.child("used");
            quantity_errors(resource, amount, &used.key(resource), errors);
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, most) in entries(object, &["status", "hard"]) {
            let used = match text(object, &["status", "used", resource]) {
                "" => "0",
                used => used,
            };
            let cell = format!("{resource}: {used}/{}", most.as_str().unwrap_or_default());
            if resource.starts_with("limits.") { limits.push(cell) } else { requests.push(cell) }
        }
        vec![name(object), Value::from(requests.join(", ")), Value::from(limits.join(", ")), age(object, now)]
    }
}

fn hard(holder: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (resource, amount) in entries(holder, &["hard"]) {
        let path = path.key(resource);
        let wrong = formats::qualified_name(resource);
        let known = resource.contains('/')
            || STANDARD.contains(&resource.as_str())
            || resource.starts_with("hugepages-")
            || resource.starts_with("requests.hugepages-");
        if wrong.is_empty() && !known {
            path.invalid(errors, resource.as_str(), "must be a standard resource type or fully qualified");
            path.invalid(errors, resource.as_str(), "must be a standard resource for quota");
        }
        path.check(errors, resource, wrong);
        quantity_errors(resource, amount, &path, errors);
    }
}

fn scopes(object: &Value, errors: &mut Vec<FieldError>) {
    const KNOWN: &[&str] = &[
        "Terminating",
        "NotTerminating",
        "BestEffort",
        "NotBestEffort",
        "PriorityClass",
        "CrossNamespacePodAffinity",
        "VolumeAttributesClass",
    ];
    let list = Value::from(items(object, &["spec", "scopes"]).to_vec());
    let path = SPEC.child("scopes");
    let has = |scope: &str| texts(object, &["spec", "scopes"]).any(|own| own == scope);
    for _ in texts(object, &["spec", "scopes"]).filter(|scope| !KNOWN.contains(scope)) {
        path.invalid(errors, list.clone(), "unsupported scope");
    }
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if has(one) && has(other) {
            path.invalid(errors, list.clone(), "conflicting scopes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quotas_are_checked_and_shown() {
        let mut errors = Vec::new();
        let wrong = json!({"spec": {"hard": {"pods": "-1", "odd": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}});
        ResourceQuota.validate_create(&wrong, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "spec.hard[odd]: Invalid value: \"odd\": must be a standard resource type or fully qualified",
                "spec.hard[odd]: Invalid value: \"odd\": must be a standard resource for quota",
                "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
            ]
        );
        let shown = json!({"metadata": {"name": "q"}, "status": {
            "hard": {"limits.cpu": "4", "pods": "10", "cpu": "2"}, "used": {"pods": "1"}}});
        let row = ResourceQuota.row(&shown, Timestamp::UNIX_EPOCH);
        assert_eq!(Value::from(row), json!(["q", "cpu: 0/2, pods: 1/10", "limits.cpu: 0/4", "<unknown>"]));
    }
}
