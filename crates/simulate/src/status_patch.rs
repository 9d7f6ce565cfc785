//! The strategic merge patch that turns a pod's status into the planned one.
//!
//! Pure. Invariant: conditions that did not change are not in it, so that those of others stay as they are.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// The patch, for the pod of this uid alone.
pub(crate) fn status_patch(uid: Option<&str>, before: &PodStatus, after: &PodStatus) -> Value {
    let (old, new) = (fields(before), fields(after));
    let mut changes = Map::new();
    for (field, value) in &new {
        let known = old.get(field);
        if known == Some(value) {
            continue;
        }
        let change = if field == "conditions" { changed(known, value) } else { value.clone() };
        changes.insert(field.clone(), change);
    }
    json!({ "metadata": { "uid": uid }, "status": changes })
}

fn fields(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// The conditions that differ; reason and message are always said, so that old ones go.
fn changed(old: Option<&Value>, new: &Value) -> Value {
    let old = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let differing = new.as_array().into_iter().flatten().filter(|condition| !old.contains(condition));
    let complete = |condition: &Value| {
        let mut condition = condition.clone();
        for field in ["reason", "message"] {
            if condition.get(field).is_none() {
                condition[field] = Value::Null;
            }
        }
        condition
    };
    differing.map(complete).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_said() {
        let status = |value: Value| serde_json::from_value::<PodStatus>(value).unwrap();
        let before = status(json!({"phase": "Pending", "qosClass": "Burstable", "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "x"},
        ]}));
        let after = status(json!({"phase": "Running", "qosClass": "Burstable", "podIP": "100.64.0.1", "conditions": [
            {"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"},
        ]}));
        let expected = json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "podIP": "100.64.0.1",
            "conditions": [{"type": "Ready", "status": "True", "reason": null, "message": null}]}});
        assert_eq!(status_patch(Some("u"), &before, &after), expected);
    }
}
