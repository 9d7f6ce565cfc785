//! A9: a host path is not of the type that a pod asks for.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::control_plane::{Component, effects, is_of_the_control_plane};
use crate::rules::events::told_by_events;
use crate::rules::signs::{Sign, Told};
use crate::rules::{Layer, Rule};

const WORDS: &str = "hostPath type check failed";
const SIGN: Sign = Sign { programs: &["kubelet"], words: &[&[WORDS]], over: &[] };

pub(super) const RULE: Rule = Rule {
    id: "A9",
    title: "a host path is not of the type that a pod asks for",
    layer: Layer::Etcd,
    explains: effects::OF_A_COMPONENT,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        ("See what lies there", "stat PATH"),
        ("Correct the path or its type in the pod, or put there what it asks for", ""),
    ]);
    let told = told_by_events(evidence, &repair, |reason, message| reason == "FailedMount" && message.contains(WORDS));
    let mut found: Vec<Finding> = told.into_iter().map(narrowed).collect();
    if found.is_empty() {
        let tell = |told: &Told<'_>| format!("the kubelet says: {}", told.text.trim());
        found = SIGN.found(evidence, Certainty::Proven, |_| repair.clone(), tell);
    }
    found
}

/// A pod of the control plane has effects of its own, another one only fails itself.
fn narrowed(finding: Finding) -> Finding {
    let component = Component::ALL.into_iter().find(|component| finding.subject.name.starts_with(component.name()));
    match component.filter(|_| is_of_the_control_plane(&finding.subject)) {
        Some(component) => finding.only(component.effects()),
        None => finding.only(&["W1", "W2"]),
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_wrong_type_is_found_in_events_and_in_the_log() {
        let event = |message: &str| event_of("Pod", "web", "FailedMount", message);
        let message =
            "MountVolume.SetUp failed for volume \"x\" : hostPath type check failed: /etc/x is not a directory";
        assert_eq!(found(&RULE, [event(message)]).len(), 1);
        assert_eq!(
            found(&RULE, [event("MountVolume.SetUp failed for volume \"x\" : secret \"x\" not found")]),
            [""; 0]
        );
        check_lines(
            &RULE,
            &[(
                "kubelet",
                r#"E0722 10:00:00.0 1 nestedpendingoperations.go:348] Operation for "x" failed. Error: MountVolume.SetUp failed for volume "x" : hostPath type check failed: /etc/x is not a file"#,
            )],
            &[("kubelet", "I0722 MountVolume.SetUp succeeded for volume \"x\"")],
        );
    }
}
