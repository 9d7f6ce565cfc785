//! W5: the kubelet asks a container again and again whether it is well, and it does not say so.
//!
//! A program that is still starting fails its first probes: what counts is that they fail for a while.

use crate::evidence::Evidence;
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::events::{Word, last_words};
use crate::rules::{Explains, Layer, Rule, Scope, is_of_the_control_plane};

/// Probes that failed one after the other.
const SEVERAL: i64 = 3;

pub(super) const RULE: Rule = Rule {
    id: "W5",
    title: "a container does not pass its probe",
    layer: Layer::Workload,
    explains: &[Explains { ids: &["W1"], scope: Scope::SameSubject }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for word in last_words(evidence, |reason, message| reason == "Unhealthy" && message.contains(" probe ")) {
        let item = &evidence.items[word.index];
        if !is_repeated(&item.fact) || is_told_elsewhere(&word) {
            continue;
        }
        let (namespace, name) = (&word.subject.namespace, &word.subject.name);
        let repair = Repair::of(&[
            ("See what is asked, and how", &format!("kubectl -n {namespace} describe pod {name}")),
            ("See what the program says to it", &format!("kubectl -n {namespace} logs {name}")),
            ("Mend the probe where it asks for the wrong thing, or too early: initialDelaySeconds, startupProbe", ""),
        ]);
        let ends = if word.message.starts_with("Readiness") {
            "it gets no requests of its Services"
        } else {
            "the kubelet ends it for that"
        };
        let told = format!("{}: {}; {ends}", word.subject, word.message.trim());
        let finding = Finding::failure(word.subject, item, Certainty::Proven, told, vec![word.index], repair);
        found.push(finding.on_node(word.node));
    }
    found
}

/// Rules of the control plane and of the pod network say more of theirs.
fn is_told_elsewhere(word: &Word<'_>) -> bool {
    is_of_the_control_plane(&word.subject) || word.message.contains("BIRD")
}

/// How often it was told: by the older API, or as a series.
fn is_repeated(event: &Fact) -> bool {
    let Fact::Object(event) = event else { return false };
    let told = [&event["count"], &event["series"]["count"]].into_iter().filter_map(serde_json::Value::as_i64).max();
    told.is_some_and(|count| count >= SEVERAL)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn event(message: &str, count: i64) -> Value {
        let mut event = event_of("Pod", "web", "Unhealthy", message);
        event["count"] = json!(count);
        event
    }

    #[test]
    fn a_probe_that_keeps_failing_is_found() {
        let message = "Readiness probe failed: HTTP probe failed with statuscode: 404";
        assert_eq!(
            found(&RULE, [event(message, 5)]),
            [format!("Pod a/web: {message}; it gets no requests of its Services")]
        );
        let message = "Liveness probe failed: dial tcp 10.0.0.7:81: connect: connection refused";
        assert!(found(&RULE, [event(message, 3)])[0].ends_with("the kubelet ends it for that"));
    }

    #[test]
    fn a_program_that_is_starting_is_not_and_one_that_is_ready_neither() {
        let message = "Readiness probe failed: HTTP probe failed with statuscode: 503";
        assert_eq!(found(&RULE, [event(message, 2)]), [""; 0]);
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        let calico =
            "Readiness probe failed: calico/node is not ready: BIRD is not ready: BGP not established with 10.0.0.2";
        assert_eq!(found(&RULE, [event(calico, 9)]), [""; 0]);
        assert_eq!(found(&RULE, [event(message, 9), pod("a", "web", json!({"nodeName": "one"}), status)]), [""; 0]);
    }
}
