//! TaintNodesByCondition: a new node takes no pods before the node life-cycle controller has seen it ready.

use async_trait::async_trait;
use kedge_meta::ApiStatus;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::object;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

#[derive(Debug, Default)]
pub(super) struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_main("", "nodes") && attributes.operation == Operation::Create
    }

    async fn admit(&self, _attributes: &Attributes<'_>, node: &mut Value) -> Result<(), ApiStatus> {
        let mut taints = object::list(node, &["spec", "taints"]).to_vec();
        let own = |taint: &Value| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule";
        if !taints.iter().any(own) {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            object::child_mut(node, "spec").insert("taints".to_owned(), taints.into());
        }
        Ok(())
    }
}
