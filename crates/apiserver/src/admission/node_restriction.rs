//! NodeRestriction: a kubelet changes its own node, its own pods, its own lease and what else is its own, and nothing else
//! of that kind.
//!
//! The node authorizer decides by names; here is what only the object itself tells. Invariant: no object that a node writes
//! gives it a right that it did not have.

mod nodes;
mod pods;
mod tokens;

use async_trait::async_trait;
use kedge_meta::{ApiStatus, UserInfo};
use serde_json::{Map, Value};

use super::{Attributes, Operation, Plugin, certificates};
use crate::object;

/// Signers whose certificates speak for a node.
const NODE_SIGNERS: [&str; 2] = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

/// What a node may write into the status of a claim.
const CLAIM_FIELDS: [&str; 4] = ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"];

#[derive(Debug, Default)]
pub(super) struct NodeRestriction;

/// The node that a user is, if it is one.
fn node_of(user: &UserInfo) -> Option<&str> {
    let is_node = user.groups.iter().any(|group| group == "system:nodes");
    user.username.strip_prefix("system:node:").filter(|_| is_node)
}

#[async_trait]
impl Plugin for NodeRestriction {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        node_of(attributes.user).is_some() && attributes.operation != Operation::Connect
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        check(attributes, object).await
    }

    /// Nothing is admitted before it is deleted.
    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        match attributes.operation {
            Operation::Delete => check(attributes, object).await,
            _ => Ok(()),
        }
    }
}

async fn check(attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
    let Some(node) = node_of(attributes.user) else { return Ok(()) };
    if node.is_empty() {
        let why = format!("could not determine node from user \"{}\"", attributes.user.username);
        return Err(attributes.forbidden(&why));
    }
    let kind = &attributes.resource.kind;
    let checked = match (&*kind.group, &*kind.resource) {
        ("", "pods") => return pods::check(attributes, node, object).await,
        ("", "serviceaccounts") => return tokens::check(attributes, node, object).await,
        ("", "nodes") => nodes::check(attributes, node, object),
        ("", "persistentvolumeclaims") => check_claim(attributes, node, object),
        ("coordination.k8s.io", "leases") => check_lease(attributes, node),
        ("storage.k8s.io", "csinodes") if attributes.name != node => {
            Err("can only access CSINode with the same name as the requesting node".to_owned())
        }
        ("resource.k8s.io", "resourceslices") => check_slice(attributes, node, object),
        ("certificates.k8s.io", "certificatesigningrequests") => check_request(attributes, node, object),
        _ => Ok(()),
    };
    checked.map_err(|why| attributes.forbidden(&why))
}

fn check_claim(attributes: &Attributes<'_>, node: &str, claim: &Value) -> Result<(), String> {
    if attributes.subresource != "status" {
        return Err("may only update PVC status".to_owned());
    }
    let Some(old) = attributes.old else { return Err("unexpected operation \"CREATE\"".to_owned()) };
    let (old, new) = (without_own_fields(old), without_own_fields(claim));
    if old == new {
        return Ok(());
    }
    // DIVERGES: upstream appends a Go diff of the two claims; this names the fields that differ.
    let names = old.as_object().into_iter().chain(new.as_object()).flat_map(Map::keys);
    let mut differing: Vec<&str> = names.filter(|name| old.get(*name) != new.get(*name)).map(String::as_str).collect();
    differing.sort_unstable();
    differing.dedup();
    Err(format!(
        "node \"{node}\" is not allowed to update fields other than status.quantity and status.conditions: {}",
        differing.join(", ")
    ))
}

/// A claim without what its node may write, and without what is nobody's statement.
fn without_own_fields(claim: &Value) -> Value {
    let mut claim = claim.clone();
    for (part, fields) in [("metadata", &["resourceVersion", "managedFields"][..]), ("status", &CLAIM_FIELDS[..])] {
        if let Some(part) = claim.get_mut(part).and_then(Value::as_object_mut) {
            part.retain(|name, _| !fields.contains(&name.as_str()));
        }
    }
    if claim.get("status").and_then(Value::as_object).is_some_and(Map::is_empty) {
        claim.as_object_mut().and_then(|claim| claim.remove("status"));
    }
    claim
}

fn check_lease(attributes: &Attributes<'_>, node: &str) -> Result<(), String> {
    if attributes.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    if attributes.name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

/// The authorizer looks at what is there; what is new, and each of those that are deleted together, is seen here alone.
fn check_slice(attributes: &Attributes<'_>, node: &str, slice: &Value) -> Result<(), String> {
    let what = match attributes.operation {
        Operation::Create => "create",
        Operation::Delete => "delete",
        Operation::Update | Operation::Connect => return Ok(()),
    };
    match object::text(slice, &["spec", "nodeName"]) == node {
        true => Ok(()),
        false => Err(format!("can only {what} ResourceSlice with the same NodeName as the requesting node")),
    }
}

fn check_request(attributes: &Attributes<'_>, node: &str, request: &Value) -> Result<(), String> {
    let signer = object::text(request, &["spec", "signerName"]);
    if attributes.operation != Operation::Create || !NODE_SIGNERS.contains(&signer) {
        return Ok(());
    }
    let subject = certificates::subject_of(request).map_err(|error| format!("unable to parse csr: {error}"))?;
    match subject.common_name.strip_prefix("system:node:") == Some(node) {
        true => Ok(()),
        false => Err(format!("can only create a node CSR with CN=system:node:{node}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_without_its_nodes_fields_is_the_same() {
        let claim = |labels: Value, status: Value| {
            without_own_fields(
                &json!({"metadata": {"name": "c", "labels": labels, "resourceVersion": "1"}, "status": status}),
            )
        };
        let (labels, phase) = (|| json!({"a": "b"}), |capacity: &str| json!({"phase": "Bound", "capacity": capacity}));
        assert_eq!(claim(labels(), phase("1Gi")), claim(labels(), phase("2Gi")));
        assert_ne!(claim(labels(), phase("1Gi")), claim(json!({}), phase("1Gi")));
        assert_ne!(claim(labels(), phase("1Gi")), claim(labels(), json!({"phase": "Lost"})));
        let mut bare = claim(labels(), json!({"conditions": []}));
        bare.as_object_mut().unwrap().remove("status");
        assert_eq!(claim(labels(), json!({"conditions": []})), bare);
    }
}
