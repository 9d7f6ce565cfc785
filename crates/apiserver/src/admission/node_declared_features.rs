//! NodeDeclaredFeatureValidator: a pod is not changed in a way that its node does not know how to follow.

use async_trait::async_trait;
use kedge_meta::ApiStatus;
use serde_json::Value;

use super::pod_amounts::{amounts, is_sidecar};
use super::pod_resize::node_of_changed;
use super::{Attributes, Operation, Plugin};
use crate::object;

/// What nodes declare that resize pods as a whole.
const POD_LEVEL: &str = "InPlacePodLevelResourcesVerticalScaling";

/// What nodes declare that resize containers which come before others.
const INIT_CONTAINERS: &str = "InPlacePodVerticalScalingInitContainers";

#[derive(Debug, Default)]
pub(super) struct NodeDeclaredFeatureValidator;

#[async_trait]
impl Plugin for NodeDeclaredFeatureValidator {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update
            && attributes.resource.is("", "pods")
            && matches!(attributes.subresource, "" | "resize")
    }

    async fn validate(&self, attributes: &Attributes<'_>, pod: &Value) -> Result<(), ApiStatus> {
        let required = attributes.old.map(|old| required(old, pod)).unwrap_or_default();
        if required.is_empty() {
            return Ok(());
        }
        let Some(node) = node_of_changed(attributes, pod).await? else { return Ok(()) };
        let declared = object::list(&node, &["status", "declaredFeatures"]);
        let lacking: Vec<&str> = required.into_iter().filter(|name| !declared.iter().any(|own| own == name)).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        Err(attributes.forbidden(&format!(
            "pod update requires features {} which are not available on node \"{}\"",
            lacking.join(", "),
            object::name(&node)
        )))
    }
}

/// The features that a node needs for a change; sorted.
fn required(old: &Value, new: &Value) -> Vec<&'static str> {
    let mut required = Vec::new();
    if differ(&old["spec"], &new["spec"]) {
        required.push(POD_LEVEL);
    }
    let [before, after] = [old, new].map(|pod| object::list(pod, &["spec", "initContainers"]));
    if before.iter().zip(after).any(|(old, new)| !is_sidecar(old) && differ(old, new)) {
        required.push(INIT_CONTAINERS);
    }
    required
}

/// Whether two ask for different amounts, or for different claims.
fn differ(old: &Value, new: &Value) -> bool {
    let of = |asking: &Value, kind: &str| amounts(object::at(asking, &["resources", kind]));
    let claims = |asking: &Value| object::list(asking, &["resources", "claims"]).to_vec();
    ["requests", "limits"].iter().any(|kind| of(old, kind) != of(new, kind)) || claims(old) != claims(new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_need_features() {
        let pod = |pod: Value, sidecar: Value, init: Value| {
            json!({"spec": {"resources": pod, "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": sidecar}, {"name": "i", "resources": init}]}})
        };
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        let old = pod(cpu("1"), cpu("1"), cpu("1"));
        let check = |new: Value, expected: &[&str]| assert_eq!(required(&old, &new), expected, "{new}");
        check(old.clone(), &[]);
        check(pod(cpu("1000m"), cpu("2"), cpu("1")), &[]);
        check(pod(cpu("2"), cpu("1"), cpu("1")), &[POD_LEVEL]);
        check(pod(json!({}), cpu("1"), cpu("2")), &[POD_LEVEL, INIT_CONTAINERS]);
    }
}
