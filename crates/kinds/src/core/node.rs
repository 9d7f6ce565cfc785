//! Nodes.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::formats;
use crate::path::Path;
use crate::pod_spec::quantity_errors;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name, or_none, wide};
use crate::value::{at, at_mut, child, entries, fill, is_set, items, keep, text, truth};

/// Of nodes.
pub(crate) struct Node;

const SPEC: Path<'static> = Path::root("spec");

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "Whether the node is ready, and whether it takes pods"),
    column("Roles", "string", "Roles out of the node's labels"),
    AGE,
    column("Version", "string", "Version of the kubelet"),
    wide("Internal-IP", "string", "First internal address"),
    wide("External-IP", "string", "First external address"),
    wide("OS-Image", "string", "Operating system"),
    wide("Kernel-Version", "string", "Kernel"),
    wide("Container-Runtime", "string", "Container runtime and its version"),
];

impl Strategy for Node {
    fn default(&self, object: &mut Value) {
        fill(object, "spec", json!({}));
        let Some(status) = child(object, "status") else { return };
        if let (None, Some(capacity)) = (at(status, &["allocatable"]), at(status, &["capacity"]).cloned()) {
            fill(status, "allocatable", capacity);
        }
        if let Some(endpoints) =
            child(status, "daemonEndpoints").and_then(|endpoints| child(endpoints, "kubeletEndpoint"))
        {
            fill(endpoints, "Port", 0);
        }
        if let Some(info) = child(status, "nodeInfo") {
            const FIELDS: &[&str] = &[
                "architecture",
                "bootID",
                "containerRuntimeVersion",
                "kernelVersion",
                "kubeProxyVersion",
                "kubeletVersion",
                "machineID",
                "operatingSystem",
                "osImage",
                "systemUUID",
            ];
            FIELDS.iter().for_each(|field| fill(info, field, ""));
        }
    }

    /// A kubelet registers with its status set.
    fn keeps_status_on_create(&self) -> bool {
        true
    }

    fn prepare_subresource_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        if subresource == "status"
            && !is_set(new, &["status", "nodeInfo"])
            && let Some(status) = at_mut(new, &["status"])
        {
            keep(status, &old["status"], "nodeInfo");
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        taints(object, errors);
        amounts(object, errors);
        let cidrs = items(object, &["spec", "podCIDRs"]);
        let path = SPEC.child("podCIDRs");
        for (index, cidr) in cidrs.iter().filter_map(Value::as_str).enumerate() {
            path.index(index).check(errors, cidr, formats::cidr(cidr));
        }
        let is_v6 = |cidr: &Value| cidr.as_str().is_some_and(|cidr| cidr.contains(':'));
        if cidrs.len() > 2 || (cidrs.len() == 2 && is_v6(&cidrs[0]) == is_v6(&cidrs[1])) {
            path.invalid(errors, cidrs.to_vec(), "may specify no more than one CIDR for each IP family");
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        amounts(new, errors);
        let addresses = items(new, &["status", "addresses"]);
        for (index, address) in addresses.iter().enumerate().filter(|(index, one)| addresses[..*index].contains(one)) {
            Path::root("status").child("addresses").index(index).duplicate(errors, address.clone());
        }
        if is_set(old, &["spec", "podCIDRs"]) && at(new, &["spec", "podCIDRs"]) != at(old, &["spec", "podCIDRs"]) {
            let why = "node updates may not change podCIDR except from \"\" to valid";
            SPEC.child("podCIDRs").forbidden(errors, why);
        }
        let provider = text(old, &["spec", "providerID"]);
        if !provider.is_empty() && provider != text(new, &["spec", "providerID"]) {
            let why = "node updates may not change providerID except from \"\" to valid";
            SPEC.child("providerID").forbidden(errors, why);
        }
        taints(new, errors);
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_update(new, old, errors);
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let info = &object["status"]["nodeInfo"];
        let known = |field: &str| match text(info, &[field]) {
            "" => Value::from("<unknown>"),
            value => Value::from(value),
        };
        vec![
            name(object),
            Value::from(status(object)),
            Value::from(or_none(roles(object).join(","))),
            age(object, now),
            Value::from(text(info, &["kubeletVersion"])),
            Value::from(or_none(address(object, "InternalIP"))),
            Value::from(or_none(address(object, "ExternalIP"))),
            known("osImage"),
            kernel(info),
            known("containerRuntimeVersion"),
        ]
    }

    fn fields(&self) -> &[&str] {
        &["spec.unschedulable"]
    }

    fn field(&self, object: &Value, _path: &str) -> String {
        truth(object, &["spec", "unschedulable"]).to_string()
    }
}

/// Taints, which upstream reports below `metadata`.
fn taints(node: &Value, errors: &mut Vec<FieldError>) {
    let metadata = Path::root("metadata");
    let list = metadata.child("taints");
    let taints = items(node, &["spec", "taints"]);
    for (index, taint) in taints.iter().enumerate() {
        let path = list.index(index);
        let (key, value, effect) = (text(taint, &["key"]), text(taint, &["value"]), text(taint, &["effect"]));
        path.child("key").check(errors, key, formats::qualified_name(key));
        let wrong = formats::label_value(value);
        if !wrong.is_empty() {
            path.child("value").invalid(errors, value, &wrong.join(";"));
        }
        const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
        path.child("effect").required_one_of(errors, effect, EFFECTS);
        let same = |other: &Value| text(other, &["key"]) == key && text(other, &["effect"]) == effect;
        if taints[..index].iter().any(same) {
            path.duplicate(errors, taint.clone());
        }
    }
}

fn amounts(node: &Value, errors: &mut Vec<FieldError>) {
    for list in ["capacity", "allocatable"] {
        for (resource, amount) in entries(node, &["status", list]) {
            let status = Path::root("status");
            let amounts = status.child(list);
            quantity_errors(resource, amount, &amounts.child(resource), errors);
        }
    }
}

/// The kernel's version, with the architecture where it is known.
fn kernel(info: &Value) -> Value {
    let version = match text(info, &["kernelVersion"]) {
        "" => "<unknown>",
        version => version,
    };
    match text(info, &["architecture"]) {
        "" => Value::from(version),
        architecture => Value::from(format!("{version} ({architecture})")),
    }
}

fn status(node: &Value) -> String {
    let ready = items(node, &["status", "conditions"]).iter().find(|condition| text(condition, &["type"]) == "Ready");
    let mut status = match ready.map(|condition| text(condition, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if truth(node, &["spec", "unschedulable"]) {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> Vec<&str> {
    let mut roles: Vec<&str> = entries(node, &["metadata", "labels"])
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            None if key == "kubernetes.io/role" => value.as_str(),
            role => role,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles
}

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    items(node, &["status", "addresses"])
        .iter()
        .find(|address| text(address, &["type"]) == kind)
        .map(|address| text(address, &["address"]))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_show_roles_and_readiness() {
        let node = json!({
            "metadata": {"name": "n1", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "kernelVersion": "6.1", "architecture": "amd64"}}});
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let expected = json!([
            "n1",
            "Ready,SchedulingDisabled",
            "control-plane,worker",
            "24h",
            "v1.36.0",
            "10.0.0.1",
            "<none>",
            "<unknown>",
            "6.1 (amd64)",
            "<unknown>"
        ]);
        assert_eq!(Value::from(Node.row(&node, now)), expected);
        assert_eq!(Node.field(&node, "spec.unschedulable"), "true");
    }

    #[test]
    fn taints_must_be_unique() {
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        let mut errors = Vec::new();
        Node.validate_create(&json!({"spec": {"taints": [taint, taint, {"key": "b", "effect": "Odd"}]}}), &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].starts_with("metadata.taints[1]: Duplicate value"), "{texts:?}");
        assert!(texts[1].starts_with("metadata.taints[2].effect: Unsupported value: \"Odd\""), "{texts:?}");
    }
}
