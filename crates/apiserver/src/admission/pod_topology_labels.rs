//! PodTopologyLabels: zone and region of a node become labels of the pods that are bound to it, where the downward API
//! hands them to containers (KEP-4742).
//!
//! Invariant: a node that is not there refuses nothing, as upstream has it.

use async_trait::async_trait;
use kedge_meta::ApiStatus;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::{object, scan};

const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

#[derive(Debug, Default)]
pub(super) struct PodTopologyLabels;

#[async_trait]
impl Plugin for PodTopologyLabels {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create
            && attributes.resource.is("", "pods")
            && matches!(attributes.subresource, "" | "binding")
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        let name = node_of(object, attributes.subresource).to_owned();
        if name.is_empty() {
            return Ok(());
        }
        let registry = attributes.core.registry.load();
        let nodes = registry.storage("", "nodes").expect("nodes are built in");
        if let Some(node) = attributes.core.find(nodes, "", &name).await? {
            copy_labels(&node.value, object);
        }
        Ok(())
    }
}

/// The node that a pod is created on, or bound to; empty where there is none.
fn node_of<'a>(object: &'a Value, subresource: &str) -> &'a str {
    match subresource {
        "binding" if object::text(object, &["target", "kind"]) != "Node" => "",
        "binding" => object::text(object, &["target", "name"]),
        _ => object::text(object, &["spec", "nodeName"]),
    }
}

/// The labels of a stored node win over those that the object has.
fn copy_labels(node: &[u8], object: &mut Value) {
    let Some(labels) = scan::field(node, &["metadata", "labels"]) else { return };
    for (key, value) in scan::strings(labels).filter(|(key, _)| LABELS.contains(&key.as_ref())) {
        let own = object::metadata_mut(object).entry("labels").or_insert_with(|| json!({}));
        if let Some(own) = own.as_object_mut() {
            own.insert(key.into_owned(), value.into_owned().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_named_by_pods_and_bindings() {
        let check = |subresource: &str, object: Value, expected: &str| {
            assert_eq!(node_of(&object, subresource), expected, "{object}");
        };
        check("", json!({"spec": {"nodeName": "n"}}), "n");
        check("", json!({"spec": {}}), "");
        check("binding", json!({"target": {"kind": "Node", "name": "n"}}), "n");
        check("binding", json!({"target": {"name": "n"}}), "");
    }

    #[test]
    fn zone_and_region_win_and_nothing_else_is_copied() {
        let node = json!({"metadata": {"labels": {
            "kubernetes.io/hostname": "n", "topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"}}});
        let check = |node: &Value, object: Value, expected: Value| {
            let mut object = object;
            copy_labels(node.to_string().as_bytes(), &mut object);
            assert_eq!(object["metadata"]["labels"], expected);
        };
        let both = json!({"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"});
        check(&node, json!({"metadata": {"name": "a"}}), both);
        let with_own = json!({"app": "web", "topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"});
        let own = json!({"metadata": {"labels": {"app": "web", "topology.kubernetes.io/zone": "mine"}}});
        check(&node, own, with_own);
        check(&json!({"metadata": {}}), json!({"metadata": {"name": "a"}}), Value::Null);
    }
}
