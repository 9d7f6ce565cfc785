//! Reading objects of the API by their paths: what rules need, absent where a field is not there.

use jiff::Timestamp;
use serde_json::Value;

use crate::finding::Subject;

/// Who an object is.
pub(crate) fn subject(object: &Value) -> Subject {
    Subject {
        kind: text(&object["kind"]).to_owned(),
        namespace: text(&object["metadata"]["namespace"]).to_owned(),
        name: text(&object["metadata"]["name"]).to_owned(),
    }
}

/// A text, or an empty one.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The entries of a list, or none.
pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A condition of an object's status by its type.
pub(crate) fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    list(&object["status"]["conditions"]).find(|condition| condition["type"] == name)
}

/// Whether an object was made at least so many seconds ago.
pub(crate) fn is_older_than(object: &Value, seconds: i64, now: Timestamp) -> bool {
    let created = text(&object["metadata"]["creationTimestamp"]).parse::<Timestamp>();
    created.is_ok_and(|created| now.as_second() - created.as_second() >= seconds)
}

/// Statuses of all containers of a pod: init containers, containers, ephemeral ones.
pub(crate) fn container_statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"]
        .into_iter()
        .flat_map(|field| list(&pod["status"][field]))
}

/// The last end of a container: of its present state, or of the one before.
pub(crate) fn terminated(status: &Value) -> Option<&Value> {
    [&status["state"]["terminated"], &status["lastState"]["terminated"]].into_iter().find(|state| state.is_object())
}

/// Whether only a part of the object is known, as from a table that was printed: what it does not say may still be so.
pub(crate) fn is_excerpt(object: &Value) -> bool {
    object["excerpt"] == true
}

/// Whether a pod is over or about to go: nothing is expected of it.
pub(crate) fn is_leaving(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string() || matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed")
}
