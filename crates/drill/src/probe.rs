//! What a drill looks at: symptoms that must appear, and what is seen where all is well.
//!
//! Pure: descriptions, and how an object is held against them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::action::ObjectRef;

/// Something that can be seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "see", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Probe {
    /// A condition of a node.
    NodeCondition {
        /// The node.
        node: String,
        /// As in `Ready`.
        condition: String,
        /// `True`, `False` or `Unknown`.
        status: String,
        /// Words of its reason or message.
        #[serde(default)]
        contains: String,
    },
    /// A pod whose status has all of these words, in the JSON that the API has.
    Pod {
        /// Its namespace.
        namespace: String,
        /// How its name begins.
        name: String,
        /// Words of its status.
        contains: Vec<String>,
        /// Words that its status does not have.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lacks: Vec<String>,
    },
    /// An event.
    Event {
        /// The namespace of what it is about.
        namespace: String,
        /// Its reason.
        reason: String,
        /// Words of its message.
        #[serde(default)]
        contains: String,
    },
    /// Whether the API server answers.
    Api {
        /// Whether.
        answers: bool,
    },
    /// A field of an object.
    Object {
        /// Which.
        object: ObjectRef,
        /// The field, as a JSON pointer; the whole object where empty.
        #[serde(default)]
        at: String,
        /// Words of it; absent fields have no words.
        contains: String,
    },
    /// A namespace in which every Deployment and StatefulSet has all its replicas and every claim its volume; one with none is as good.
    Workloads {
        /// Which.
        namespace: String,
    },
    /// An object that is not there.
    NoObject {
        /// Which.
        object: ObjectRef,
    },
    /// What a command says on a machine.
    Command {
        /// The machine.
        on: String,
        /// For a shell.
        run: String,
        /// Whether it ends with 0.
        #[serde(default = "yes")]
        ok: bool,
        /// Words of its output.
        #[serde(default)]
        contains: String,
    },
}

fn yes() -> bool {
    true
}

/// Whether a pod is the one, and shows what it should.
pub(crate) fn pod_shows(pod: &Value, name: &str, contains: &[String], lacks: &[String]) -> bool {
    let is_it = pod["metadata"]["name"].as_str().is_some_and(|own| own.starts_with(name));
    let status = pod["status"].to_string();
    is_it && contains.iter().all(|word| status.contains(word)) && !lacks.iter().any(|word| status.contains(word))
}

/// Whether a node has a condition.
pub(crate) fn condition_shows(node: &Value, wanted: &str, status: &str, words: &str) -> bool {
    let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| {
        condition["type"] == wanted
            && condition["status"] == status
            && (condition["reason"].as_str().is_some_and(|reason| reason.contains(words))
                || condition["message"].as_str().is_some_and(|message| message.contains(words)))
    })
}

/// Whether an event tells it.
pub(crate) fn event_shows(event: &Value, reason: &str, words: &str) -> bool {
    event["reason"] == reason && event["message"].as_str().unwrap_or_default().contains(words)
}

/// Whether a Deployment has what it wants, as of its present generation.
pub(crate) fn is_available(deployment: &Value) -> bool {
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let (status, wanted) = (&deployment["status"], number(&deployment["spec"]["replicas"]));
    number(&status["observedGeneration"]) >= number(&deployment["metadata"]["generation"])
        && ["replicas", "updatedReplicas", "availableReplicas"].iter().all(|field| number(&status[*field]) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rollout_in_its_middle_is_not_available() {
        let status = json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1});
        let deployment = json!({"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": status});
        assert!(is_available(&deployment));
        for (at, value) in [("/metadata/generation", 3), ("/status/replicas", 2), ("/status/availableReplicas", 0)] {
            let mut other = deployment.clone();
            *other.pointer_mut(at).expect("it is there") = json!(value);
            assert!(!is_available(&other), "{at}");
        }
    }

    #[test]
    fn what_is_seen_is_held_against_what_is_wanted() {
        let pod = json!({"metadata": {"name": "web-1"}, "status": {"phase": "Pending"}});
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert!(pod_shows(&pod, "web", &words(&["Pending"]), &[]));
        assert!(!pod_shows(&pod, "web", &words(&["Pending"]), &words(&["phase"])));
        assert!(!pod_shows(&pod, "other", &[], &[]));
        let node = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "message": "no network"}]}});
        assert!(condition_shows(&node, "Ready", "False", "network"));
        assert!(!condition_shows(&node, "Ready", "True", ""));
        assert!(event_shows(&json!({"reason": "Failed", "message": "a b"}), "Failed", "b"));
    }
}
