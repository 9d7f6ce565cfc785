//! What a node says of itself: not its taints, its owners, or the labels by which others choose it.

use std::collections::BTreeSet;

use kedge_meta::{ApiStatus, GroupResource};
use serde_json::{Map, Value};

use super::{Attributes, Operation};
use crate::object;

/// By labels in it administrators keep nodes apart.
const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// Namespaces of labels that are Kubernetes' own.
const KUBERNETES: [&str; 2] = ["kubernetes.io", "k8s.io"];

/// Of these, namespaces that are for nodes.
const FOR_NODES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Of these, labels that are for nodes.
const LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

pub(super) fn check(attributes: &Attributes<'_>, node: &str, object: &Value) -> Result<(), String> {
    if attributes.name != node {
        return Err(format!("node \"{node}\" is not allowed to modify node \"{}\"", attributes.name));
    }
    match (attributes.operation, attributes.old) {
        (Operation::Create, _) => check_new(node, object),
        (Operation::Update, Some(old)) => check_change(node, old, object),
        _ => Ok(()),
    }
}

/// 404 about a node.
pub(super) fn not_found(name: &str) -> ApiStatus {
    ApiStatus::not_found(&GroupResource { group: String::new(), resource: "nodes".to_owned() }, name)
}

fn check_new(node: &str, object: &Value) -> Result<(), String> {
    if object::at(object, &["spec", "configSource"]).is_some_and(|source| !source.is_null()) {
        return Err(format!("node \"{node}\" is not allowed to create pods with a non-nil configSource"));
    }
    match forbidden_labels(&Value::Null, object) {
        labels if labels.is_empty() => Ok(()),
        labels => Err(format!("node \"{node}\" is not allowed to set the following labels: {labels}")),
    }
}

fn check_change(node: &str, old: &Value, new: &Value) -> Result<(), String> {
    let at = |object: &Value, path: &[&str]| object::at(object, path).filter(|value| !value.is_null()).cloned();
    let source = at(new, &["spec", "configSource"]);
    if source.is_some() && source != at(old, &["spec", "configSource"]) {
        return Err(format!("node \"{node}\" is not allowed to update configSource to a new non-nil configSource"));
    }
    let differs = |path: &[&str]| object::list(old, path) != object::list(new, path);
    if differs(&["spec", "taints"]) {
        return Err(format!("node \"{node}\" is not allowed to modify taints"));
    }
    if differs(&["metadata", "ownerReferences"]) {
        return Err(format!("node \"{node}\" is not allowed to modify ownerReferences"));
    }
    match forbidden_labels(old, new) {
        labels if labels.is_empty() => Ok(()),
        labels => Err(format!("is not allowed to modify labels: {labels}")),
    }
}

/// The labels that differ and are none of the node's business, for people.
fn forbidden_labels(old: &Value, new: &Value) -> String {
    let labels = |object: &Value| -> Map<String, Value> {
        object::at(object, &["metadata", "labels"]).and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let (old, new) = (labels(old), labels(new));
    let keys: BTreeSet<&str> = old.keys().chain(new.keys()).map(String::as_str).collect();
    let forbidden = |key: &&str| old.get(*key) != new.get(*key) && is_forbidden(key);
    keys.into_iter().filter(forbidden).collect::<Vec<_>>().join(", ")
}

fn is_forbidden(key: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let within =
        |parent: &str| namespace.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let is_for_nodes = LABELS.contains(&key) || FOR_NODES.into_iter().any(within);
    within(RESTRICTED) || (KUBERNETES.into_iter().any(within) && !is_for_nodes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_of_others_are_forbidden() {
        for (key, forbidden) in [
            ("zone", false),
            ("example.com/zone", false),
            ("kubernetes.io/hostname", false),
            ("node.kubernetes.io/instance-type", false),
            ("gpu.node.kubernetes.io/x", false),
            ("xnode.kubernetes.io/x", true),
            ("kubelet.kubernetes.io/x", false),
            ("kubernetes.io/x", true),
            ("node-role.kubernetes.io/control-plane", true),
            ("x.k8s.io/y", true),
            ("xk8s.io/y", false),
            ("node-restriction.kubernetes.io/x", true),
            ("team.node-restriction.kubernetes.io/x", true),
        ] {
            assert_eq!(is_forbidden(key), forbidden, "{key}");
        }
    }

    #[test]
    fn a_node_changes_neither_taints_nor_owners_nor_others_labels() {
        let check = |new: Value, why: &str| {
            let old = json!({"metadata": {"labels": {"a": "b", "kubernetes.io/x": "1"}},
                "spec": {"taints": [{"key": "k"}]}});
            let mut merged = old.clone();
            json_merge(&mut merged, &new);
            assert_eq!(check_change("n", &old, &merged).err().unwrap_or_default(), why, "{new}");
        };
        check(json!({"metadata": {"labels": {"a": "c"}}}), "");
        check(
            json!({"metadata": {"labels": {"kubernetes.io/x": "2"}}}),
            "is not allowed to modify labels: kubernetes.io/x",
        );
        check(json!({"spec": {"taints": []}}), "node \"n\" is not allowed to modify taints");
        let owners = json!({"metadata": {"ownerReferences": [{"name": "x"}]}});
        check(owners, "node \"n\" is not allowed to modify ownerReferences");
        let source = json!({"spec": {"configSource": {}}});
        check(source, "node \"n\" is not allowed to update configSource to a new non-nil configSource");
    }

    fn json_merge(object: &mut Value, patch: &Value) {
        match (object.as_object_mut(), patch.as_object()) {
            (Some(fields), Some(patch)) => {
                for (name, value) in patch {
                    json_merge(fields.entry(name.as_str()).or_insert(Value::Null), value);
                }
            }
            _ => *object = patch.clone(),
        }
    }
}
