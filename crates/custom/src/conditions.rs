//! The conditions of a definition's status.

use serde_json::{Value, json};

use crate::json::{items, text};

/// Keeps a definition until its instances are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A condition without its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition<'a> {
    /// `Established`, `NamesAccepted`, `Terminating`, ...
    pub kind: &'a str,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: &'a str,
    /// Why, for people.
    pub message: &'a str,
}

/// Whether a condition holds.
pub fn has_condition(definition: &Value, kind: &str) -> bool {
    find(definition, kind).is_some_and(|condition| text(condition, &["status"]) == "True")
}

fn find<'a>(definition: &'a Value, kind: &str) -> Option<&'a Value> {
    items(definition, &["status", "conditions"]).iter().find(|condition| text(condition, &["type"]) == kind)
}

/// Sets a condition; its time changes only with its status. `now` is RFC 3339.
pub fn set_condition(definition: &mut Value, condition: &Condition<'_>, now: &str) {
    let status = if condition.holds { "True" } else { "False" };
    let known = find(definition, condition.kind).filter(|known| text(known, &["status"]) == status);
    let since = known.map_or(now, |known| text(known, &["lastTransitionTime"])).to_owned();
    let new = json!({"type": condition.kind, "status": status, "lastTransitionTime": since,
        "reason": condition.reason, "message": condition.message});
    if !definition["status"].is_object() {
        definition["status"] = json!({});
    }
    let conditions = &mut definition["status"]["conditions"];
    match conditions.as_array_mut() {
        Some(list) => match list.iter_mut().find(|known| text(known, &["type"]) == condition.kind) {
            Some(known) => *known = new,
            None => list.push(new),
        },
        None => *conditions = json!([new]),
    }
}

/// Takes a condition away.
pub(crate) fn remove_condition(definition: &mut Value, kind: &str) {
    if let Some(list) = definition["status"]["conditions"].as_array_mut() {
        list.retain(|known| text(known, &["type"]) != kind);
    }
}
