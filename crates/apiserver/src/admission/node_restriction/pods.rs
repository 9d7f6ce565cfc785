//! What a node does with pods: it makes mirrors of its own, reports their status, evicts and deletes them.

use kedge_auth::api_reference_of_pod;
use kedge_meta::ApiStatus;
use serde_json::Value;

use super::{Attributes, Operation};
use crate::object;

const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) async fn check(attributes: &Attributes<'_>, node: &str, object: &Value) -> Result<(), ApiStatus> {
    let checked = match (attributes.subresource, attributes.operation) {
        ("", Operation::Create) => return check_mirror(attributes, node, object).await,
        ("", Operation::Delete) => match is_on(object, node) {
            true => Ok(()),
            false => Err(format!("node \"{node}\" can only delete pods with spec.nodeName set to itself")),
        },
        ("", operation) => Err(format!(
            "unexpected operation \"{}\", node \"{node}\" can only create and delete mirror pods",
            operation.as_str()
        )),
        ("status", Operation::Update) => check_status(attributes, node, object),
        ("eviction", Operation::Create) => return check_eviction(attributes, node).await,
        ("status" | "eviction", operation) => Err(format!("unexpected operation \"{}\"", operation.as_str())),
        (other, _) => Err(format!("unexpected pod subresource \"{other}\", only 'status' and 'eviction' are allowed")),
    };
    checked.map_err(|why| attributes.forbidden(&why))
}

fn is_on(pod: &Value, node: &str) -> bool {
    object::text(pod, &["spec", "nodeName"]) == node
}

async fn check_mirror(attributes: &Attributes<'_>, node: &str, pod: &Value) -> Result<(), ApiStatus> {
    let owner = mirror_owner(node, pod).map_err(|why| attributes.forbidden(&why))?;
    let Some((_, found)) = attributes.core.object("", "nodes", "", node).await? else {
        return Err(super::nodes::not_found(node));
    };
    let (expected, got) = (object::meta(&found, "uid"), object::text(owner, &["uid"]));
    if expected != got {
        return Err(attributes.forbidden(&format!("node {node} UID mismatch: expected {expected} got {got}")));
    }
    let why = match api_reference_of_pod(pod) {
        Ok(None) => return Ok(()),
        Ok(Some(resource)) => format!("node \"{node}\" can not create pods that reference {resource}"),
        Err(error) => format!("error checking mirror pod for API references: {error}"),
    };
    Err(attributes.forbidden(&why))
}

/// The owner of what may be a mirror of a pod of the node.
fn mirror_owner<'a>(node: &str, pod: &'a Value) -> Result<&'a Value, String> {
    let only = |what: &str| Err(format!("node \"{node}\" can only create pods with {what}"));
    if object::annotation(pod, MIRROR).is_none() {
        return Err(format!("pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods"));
    }
    if !is_on(pod, node) {
        return only("spec.nodeName set to itself");
    }
    let owner = match object::list(pod, &["metadata", "ownerReferences"]) {
        [] => return only("an owner reference set to itself"),
        [owner] => owner,
        _ => return only("a single owner reference set to itself"),
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return only("an owner reference set to itself");
    }
    if owner["controller"] != true {
        return only("a controller owner reference set to itself");
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node \"{node}\" must not set blockOwnerDeletion on an owner reference"));
    }
    Ok(owner)
}

fn check_status(attributes: &Attributes<'_>, node: &str, pod: &Value) -> Result<(), String> {
    let old = attributes.old.filter(|old| is_on(old, node)).ok_or_else(|| {
        format!("node \"{node}\" can only update pod status for pods with spec.nodeName set to itself")
    })?;
    let is_changed = |path: &[&str]| filled(old, path) != filled(pod, path);
    if is_changed(&["metadata", "labels"]) {
        return Err(format!("node \"{node}\" cannot update labels through pod status"));
    }
    if is_changed(&["status", "resourceClaimStatuses"]) {
        return Err(format!("node \"{node}\" cannot update resource claim statues"));
    }
    if is_changed(&["status", "extendedResourceClaimStatus"]) {
        return Err(format!("node \"{node}\" cannot update extended resource claim status"));
    }
    Ok(())
}

/// A value that is there and not an empty map or list.
fn filled<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    object::at(object, path).filter(|value| match value {
        Value::Null => false,
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    })
}

async fn check_eviction(attributes: &Attributes<'_>, node: &str) -> Result<(), ApiStatus> {
    let Some((_, pod)) = attributes.core.object("", "pods", attributes.namespace, attributes.name).await? else {
        return Err(ApiStatus::not_found(&attributes.resource.group_resource, attributes.name));
    };
    match is_on(&pod, node) {
        true => Ok(()),
        false => {
            Err(attributes.forbidden(&format!("node {node} can only evict pods with spec.nodeName set to itself")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mirrors_belong_to_their_node() {
        let check = |owners: Value, why: &str| {
            let pod = json!({"metadata": {"annotations": {MIRROR: "x"}, "ownerReferences": owners},
                "spec": {"nodeName": "n1"}});
            let said = mirror_owner("n1", &pod).err().unwrap_or_default();
            assert!(said.ends_with(why) && said.is_empty() == why.is_empty(), "{owners}: {said}");
        };
        let owner = |more: Value| {
            let mut owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true});
            owner.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            owner
        };
        check(json!([owner(json!({}))]), "");
        check(json!([]), "with an owner reference set to itself");
        check(json!([owner(json!({})), owner(json!({}))]), "with a single owner reference set to itself");
        check(json!([owner(json!({"name": "n2"}))]), "with an owner reference set to itself");
        check(json!([owner(json!({"controller": false}))]), "with a controller owner reference set to itself");
        check(
            json!([owner(json!({"blockOwnerDeletion": true}))]),
            "must not set blockOwnerDeletion on an owner reference",
        );
        let plain = json!({"metadata": {}, "spec": {"nodeName": "n1"}});
        assert!(mirror_owner("n1", &plain).unwrap_err().starts_with("pod does not have"));
    }
}
