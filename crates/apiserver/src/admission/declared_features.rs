//! NodeDeclaredFeatureValidator: a pod that runs is changed only as its node declares that it can (KEP-5328).

use async_trait::async_trait;
use kedge_meta::ApiStatus;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::object;

const POD_RESIZE: &str = "InPlacePodLevelResourcesVerticalScaling";
const INIT_RESIZE: &str = "InPlacePodVerticalScalingInitContainers";

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
        let node = object::text(pod, &["spec", "nodeName"]);
        let needed = attributes.old.map(|old| needed(old, pod)).unwrap_or_default();
        if node.is_empty() || needed.is_empty() {
            return Ok(());
        }
        let Some((_, found)) = attributes.core.object("", "nodes", "", node).await? else {
            return Err(attributes.forbidden(&format!("node \"{node}\" not found")));
        };
        let lacking = lacking(&needed, &found);
        if lacking.is_empty() {
            return Ok(());
        }
        let lacking = lacking.join(", ");
        let why = format!("pod update requires features {lacking} which are not available on node \"{node}\"");
        Err(attributes.forbidden(&why))
    }
}

/// The features that upstream infers from a change, sorted.
fn needed(old: &Value, new: &Value) -> Vec<&'static str> {
    let mut features = Vec::new();
    if old.pointer("/spec/resources") != new.pointer("/spec/resources") {
        features.push(POD_RESIZE);
    }
    let inits =
        |pod: &Value| pod.pointer("/spec/initContainers").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_resized =
        |(old, new): &(Value, Value)| old["restartPolicy"] != "Always" && old.get("resources") != new.get("resources");
    if inits(old).into_iter().zip(inits(new)).any(|pair| is_resized(&pair)) {
        features.push(INIT_RESIZE);
    }
    features
}

fn lacking(needed: &[&'static str], node: &Value) -> Vec<&'static str> {
    let declared = node.pointer("/status/declaredFeatures").and_then(Value::as_array);
    let is_declared = |feature: &str| declared.is_some_and(|all| all.iter().any(|one| one == feature));
    needed.iter().copied().filter(|feature| !is_declared(feature)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_need_features() {
        let pod = |all: &str, init: &str, sidecar: &str| {
            let sized = |cpu: &str| json!({"requests": {"cpu": cpu}});
            json!({"spec": {"resources": sized(all), "initContainers": [
                {"name": "i", "resources": sized(init)},
                {"name": "s", "restartPolicy": "Always", "resources": sized(sidecar)}]}})
        };
        let old = pod("1", "1", "1");
        for (new, expected) in [
            (pod("1", "1", "1"), &[][..]),
            (pod("2", "1", "1"), &[POD_RESIZE]),
            (pod("1", "2", "1"), &[INIT_RESIZE]),
            (pod("1", "1", "2"), &[]),
            (pod("2", "2", "2"), &[POD_RESIZE, INIT_RESIZE]),
        ] {
            assert_eq!(needed(&old, &new), expected, "{new}");
        }
        let node = json!({"status": {"declaredFeatures": [POD_RESIZE]}});
        assert_eq!(lacking(&[POD_RESIZE, INIT_RESIZE], &node), [INIT_RESIZE]);
        assert_eq!(lacking(&[POD_RESIZE], &json!({})), [POD_RESIZE]);
    }
}
