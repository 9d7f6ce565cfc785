//! The smallest strategic merge patch that turns the status the API has into the one it should have.
//!
//! Pure. Invariant: conditions of others are never in the patch, so that two writers do not undo each other.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

use super::conditions::PASSING;

/// Fields that others write.
const FOREIGN: [&str; 4] = ["nominatedNodeName", "resize", "resourceClaimStatuses", "extendedResourceClaimStatus"];
/// Lists that strategic merge would join by key where the node means to replace them.
const JOINED: [&str; 2] = ["podIPs", "hostIPs"];

/// The patch for the status subresource; `None` where nothing differs.
pub(crate) fn status_patch(uid: &str, api: &PodStatus, wanted: &PodStatus) -> Option<Value> {
    let before = object(api);
    let after = object(wanted);
    let mut changes = Map::new();
    for (field, value) in &after {
        let old = before.get(field);
        if old == Some(value) {
            continue;
        }
        let change = match field.as_str() {
            "conditions" => condition_changes(old, value),
            field if JOINED.contains(&field) && old.is_some() => replacement(value),
            _ => Some(value.clone()),
        };
        changes.extend(change.map(|change| (field.clone(), change)));
    }
    for field in before.keys().filter(|field| !after.contains_key(*field)) {
        if !FOREIGN.contains(&field.as_str()) {
            changes.insert(field.clone(), Value::Null);
        }
    }
    (!changes.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": changes }))
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

fn replacement(value: &Value) -> Option<Value> {
    let mut list = vec![json!({ "$patch": "replace" })];
    list.extend(value.as_array()?.iter().cloned());
    Some(Value::Array(list))
}

/// Only the conditions that changed, each with explicit nulls for the fields it lost.
fn condition_changes(old: Option<&Value>, new: &Value) -> Option<Value> {
    let old = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut changed = Vec::new();
    for condition in new.as_array()?.iter().filter_map(Value::as_object) {
        let known = old.iter().filter_map(Value::as_object).find(|known| known.get("type") == condition.get("type"));
        if known == Some(condition) {
            continue;
        }
        let mut change = condition.clone();
        for field in known.into_iter().flat_map(Map::keys) {
            change.entry(field.clone()).or_insert(Value::Null);
        }
        changed.push(Value::Object(change));
    }
    let kept =
        |type_: &Value| new.as_array().into_iter().flatten().any(|condition| condition.get("type") == Some(type_));
    for type_ in old.iter().filter_map(|condition| condition.get("type")) {
        if type_.as_str().is_some_and(|type_| PASSING.contains(&type_)) && !kept(type_) {
            changed.push(json!({ "$patch": "delete", "type": type_ }));
        }
    }
    (!changed.is_empty()).then_some(Value::Array(changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(api: Value, wanted: Value, expected: Option<Value>) {
        let api: PodStatus = serde_json::from_value(api).unwrap();
        let wanted: PodStatus = serde_json::from_value(wanted).unwrap();
        let expected = expected.map(|status| json!({ "metadata": { "uid": "u" }, "status": status }));
        assert_eq!(status_patch("u", &api, &wanted), expected);
    }

    #[test]
    fn only_what_changed_is_in_the_patch() {
        check(json!({ "phase": "Pending" }), json!({ "phase": "Pending" }), None);
        check(
            json!({ "phase": "Pending", "message": "m", "nominatedNodeName": "n" }),
            json!({ "phase": "Running", "podIPs": [{ "ip": "1.1.1.1" }] }),
            Some(json!({ "phase": "Running", "message": null, "podIPs": [{ "ip": "1.1.1.1" }] })),
        );
        check(
            json!({ "podIPs": [{ "ip": "1.1.1.1" }] }),
            json!({ "podIPs": [{ "ip": "2.2.2.2" }] }),
            Some(json!({ "podIPs": [{ "$patch": "replace" }, { "ip": "2.2.2.2" }] })),
        );
    }

    #[test]
    fn resize_conditions_go_when_they_are_over() {
        check(
            json!({ "conditions": [
                { "type": "PodResizePending", "status": "True", "reason": "Deferred" },
                { "type": "example.org/gate", "status": "True" },
            ] }),
            json!({ "conditions": [] }),
            Some(json!({ "conditions": [{ "$patch": "delete", "type": "PodResizePending" }] })),
        );
    }

    #[test]
    fn conditions_change_one_by_one() {
        check(
            json!({ "conditions": [
                { "type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m" },
                { "type": "PodScheduled", "status": "True" },
                { "type": "example.org/gate", "status": "True" },
            ] }),
            json!({ "conditions": [{ "type": "Ready", "status": "True" }, { "type": "PodScheduled", "status": "True" }] }),
            Some(json!({ "conditions": [{ "type": "Ready", "status": "True", "reason": null, "message": null }] })),
        );
    }
}
