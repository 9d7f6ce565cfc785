//! NodeRestriction: a kubelet changes its own node, its own pods and its own lease, and nothing else.

use async_trait::async_trait;
use kedge_meta::{ApiStatus, UserInfo};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::object;

const MIRROR: &str = "kubernetes.io/config.mirror";
const RESTRICTED_LABEL: &str = "node-restriction.kubernetes.io";

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

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        let Some(node) = node_of(attributes.user) else { return Ok(()) };
        let resource = attributes.resource;
        let checked = if resource.is("", "pods") {
            check_pod(attributes, node, object)
        } else if resource.is("", "nodes") {
            check_node(attributes, node, object)
        } else if resource.is("", "serviceaccounts") && attributes.subresource == "token" {
            return check_token(attributes, node, object).await;
        } else if resource.is("coordination.k8s.io", "leases") {
            check_lease(attributes, node)
        } else if resource.is("storage.k8s.io", "csinodes") && attributes.name != node {
            Err("can only access CSINode with the same name as the requesting node".to_owned())
        } else {
            Ok(())
        };
        checked.map_err(|why| attributes.forbidden(&why))
    }
}

fn check_pod(attributes: &Attributes<'_>, node: &str, pod: &Value) -> Result<(), String> {
    let is_here = |pod: &Value| object::text(pod, &["spec", "nodeName"]) == node;
    match (attributes.operation, attributes.subresource) {
        (Operation::Create, "") => {
            if object::annotation(pod, MIRROR).is_none() {
                return Err(format!(
                    "pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods"
                ));
            }
            if !is_here(pod) {
                return Err(format!("node \"{node}\" can only create pods with spec.nodeName set to itself"));
            }
            check_owners(node, pod)
        }
        (Operation::Delete, _) if !is_here(pod) => {
            Err(format!("node \"{node}\" can only delete pods with spec.nodeName set to itself"))
        }
        (Operation::Update, "status") if !attributes.old.is_some_and(is_here) => {
            Err(format!("node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"))
        }
        (Operation::Update, "status") => {
            let labels = |pod: &Value| object::at(pod, &["metadata", "labels"]).cloned();
            match attributes.old.is_some_and(|old| labels(old) == labels(pod)) {
                true => Ok(()),
                false => Err(format!("node \"{node}\" cannot update labels through pod status")),
            }
        }
        (Operation::Create | Operation::Delete, _) => Ok(()),
        (_, subresource) => Err(format!("unexpected pod subresource \"{subresource}\"")),
    }
}

fn check_owners(node: &str, pod: &Value) -> Result<(), String> {
    let owners = object::list(pod, &["metadata", "ownerReferences"]);
    let own = |owner: &Value| owner["apiVersion"] == "v1" && owner["kind"] == "Node" && owner["name"] == node;
    match owners {
        [] => Ok(()),
        [owner] if own(owner) => Ok(()),
        _ => Err(format!("node \"{node}\" can only create pods with an owner reference set to itself")),
    }
}

fn check_node(attributes: &Attributes<'_>, node: &str, object: &Value) -> Result<(), String> {
    let name = if attributes.name.is_empty() { object::name(object) } else { attributes.name };
    if name != node {
        return Err(format!("node \"{node}\" is not allowed to modify node \"{name}\""));
    }
    let restricted = |object: &Value| -> Vec<(String, Value)> {
        let labels = object::at(object, &["metadata", "labels"]).and_then(Value::as_object);
        let all = labels.into_iter().flatten().filter(|(key, _)| is_restricted(key));
        all.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    match attributes.operation {
        Operation::Create => {
            let labels = restricted(object);
            let keys: Vec<&str> = labels.iter().map(|(key, _)| key.as_str()).collect();
            match keys.is_empty() {
                true => Ok(()),
                false => {
                    Err(format!("node \"{node}\" is not allowed to set the following labels: {}", keys.join(", ")))
                }
            }
        }
        Operation::Update => {
            let Some(old) = attributes.old else { return Ok(()) };
            if attributes.subresource.is_empty() {
                let taints = |object: &Value| object::list(object, &["spec", "taints"]).to_vec();
                if taints(old) != taints(object) {
                    return Err(format!("node \"{node}\" is not allowed to modify taints"));
                }
            }
            match restricted(old) == restricted(object) {
                true => Ok(()),
                false => Err(format!("is not allowed to modify labels: {RESTRICTED_LABEL}")),
            }
        }
        Operation::Delete => Err(format!("node \"{node}\" is not allowed to delete node \"{name}\"")),
        Operation::Connect => Ok(()),
    }
}

/// Labels by which administrators keep nodes apart.
fn is_restricted(key: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    namespace == RESTRICTED_LABEL || namespace.ends_with(&format!(".{RESTRICTED_LABEL}"))
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

async fn check_token(attributes: &Attributes<'_>, node: &str, request: &Value) -> Result<(), ApiStatus> {
    let reference = |name: &str| object::text(request, &["spec", "boundObjectRef", name]);
    if reference("kind") != "Pod" || reference("name").is_empty() {
        return Err(attributes.forbidden("node requested token not bound to a pod"));
    }
    if reference("uid").is_empty() {
        return Err(attributes.forbidden("node requested token with a pod binding without a uid"));
    }
    let Some((_, pod)) = attributes.core.object("", "pods", attributes.namespace, reference("name")).await? else {
        return Err(attributes.forbidden(&format!("pod \"{}\" not found", reference("name"))));
    };
    if object::meta(&pod, "uid") != reference("uid") {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
             deleted and then recreated",
            reference("uid")
        );
        return Err(attributes.forbidden(&why));
    }
    if object::text(&pod, &["spec", "nodeName"]) != node {
        return Err(attributes.forbidden("node requested token bound to a pod scheduled on a different node"));
    }
    Ok(())
}
