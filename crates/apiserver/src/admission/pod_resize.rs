//! PodResizeValidator: a running pod is not given more than its node has.

use async_trait::async_trait;
use kedge_meta::{ApiStatus, Quantity, StatusCause};
use serde_json::Value;

use super::pod_amounts::{Amounts, amounts, pod_amounts};
use super::{Attributes, Operation, Plugin};
use crate::object;

#[derive(Debug, Default)]
pub(super) struct PodResizeValidator;

#[async_trait]
impl Plugin for PodResizeValidator {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.resource.is("", "pods")
            && attributes.subresource == "resize"
            && attributes.operation == Operation::Update
    }

    async fn validate(&self, attributes: &Attributes<'_>, pod: &Value) -> Result<(), ApiStatus> {
        let Some(node) = node_of_changed(attributes, pod).await? else { return Ok(()) };
        let os = object::label(&node, "kubernetes.io/os").unwrap_or("linux");
        if os != "linux" {
            let name = object::name(&node);
            let why = format!("pod resize is only supported on linux nodes, node \"{name}\" is \"{os}\"");
            return Err(refused(attributes, &why, "UnsupportedPlatform"));
        }
        let allocatable = amounts(object::at(&node, &["status", "allocatable"]));
        match excess(&pod_amounts(pod, "requests"), &allocatable) {
            lacking if lacking.is_empty() => Ok(()),
            lacking => {
                let why = format!("node didn't have enough allocatable resources: {}", lacking.join("; "));
                Err(refused(attributes, &why, "NodeCapacity"))
            }
        }
    }
}

/// The node that a pod is on, where its spec has changed.
pub(super) async fn node_of_changed(attributes: &Attributes<'_>, pod: &Value) -> Result<Option<Value>, ApiStatus> {
    let node = object::text(pod, &["spec", "nodeName"]);
    if node.is_empty() || attributes.old.is_some_and(|old| old.get("spec") == pod.get("spec")) {
        return Ok(None);
    }
    match attributes.core.object("", "nodes", "", node).await? {
        Some((_, node)) => Ok(Some(node)),
        None => Err(attributes.forbidden(&format!("node \"{node}\" not found"))),
    }
}

fn refused(attributes: &Attributes<'_>, why: &str, reason: &str) -> ApiStatus {
    let mut status = attributes.forbidden(why);
    if let Some(details) = &mut status.details {
        details.causes.push(StatusCause { reason: reason.to_owned(), message: String::new(), field: String::new() });
    }
    status
}

/// Counts an amount in the unit of a resource.
type Count = fn(Quantity) -> i64;

/// What is asked for beyond what there is, for people.
fn excess(requests: &Amounts, allocatable: &Amounts) -> Vec<String> {
    let units: [(&str, Count); 2] = [("cpu", Quantity::millis), ("memory", Quantity::units)];
    let of = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or_default();
    let lacking = units.into_iter().filter(|(name, _)| of(requests, name) > of(allocatable, name));
    let text = |(name, count): (&str, Count)| {
        let (requested, allocatable) = (count(of(requests, name)), count(of(allocatable, name)));
        format!("{name}, requested: {requested}, allocatable: {allocatable}")
    };
    lacking.map(text).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_node_lacks_is_said() {
        let check = |requests: Value, expected: &[&str]| {
            let allocatable = amounts(Some(&json!({"cpu": "2", "memory": "1Ki"})));
            assert_eq!(excess(&amounts(Some(&requests)), &allocatable), expected, "{requests}");
        };
        check(json!({"cpu": "2", "memory": "1024"}), &[]);
        check(json!({"cpu": "2500m"}), &["cpu, requested: 2500, allocatable: 2000"]);
        let both = ["cpu, requested: 3000, allocatable: 2000", "memory, requested: 2048, allocatable: 1024"];
        check(json!({"cpu": "3", "memory": "2Ki"}), &both);
    }
}
