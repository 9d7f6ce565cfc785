//! `--allow-privileged=false`: no pod has a privileged container. Upstream checks it in validation, with this sentence.

use async_trait::async_trait;
use kedge_meta::ApiStatus;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::object;

#[derive(Debug, Default)]
pub(super) struct DenyPrivileged;

#[async_trait]
impl Plugin for DenyPrivileged {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.resource.is("", "pods") && matches!(attributes.operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &Attributes<'_>, pod: &Value) -> Result<(), ApiStatus> {
        match privileged_field(pod) {
            None => Ok(()),
            Some(field) => Err(attributes.forbidden(&format!("{field}: Forbidden: disallowed by cluster policy"))),
        }
    }
}

/// The path of the first container that is privileged.
fn privileged_field(pod: &Value) -> Option<String> {
    ["initContainers", "containers", "ephemeralContainers"].iter().find_map(|list| {
        let containers = object::list(pod, &["spec", list]);
        let index = containers.iter().position(|container| container["securityContext"]["privileged"] == true)?;
        Some(format!("spec.{list}[{index}].securityContext.privileged"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_container_is_named() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"securityContext": {"privileged": true}}]}});
        assert_eq!(privileged_field(&pod).as_deref(), Some("spec.containers[1].securityContext.privileged"));
        assert_eq!(privileged_field(&json!({"spec": {"containers": [{}]}})), None);
    }
}
