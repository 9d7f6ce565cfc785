//! I14: a volume of a pod is made of an object that is not there.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::events::told_by_events;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "I14",
    title: "a pod mounts an object that does not exist",
    layer: Layer::Workload,
    explains: &[Explains { ids: &["I6", "W2"], scope: Scope::SameSubject }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[("Make the object, or correct its name in the pod", "")]);
    told_by_events(evidence, &repair, |reason, message| {
        reason == "FailedMount"
            && message.contains("not found")
            && (message.contains("configmap") || message.contains("secret"))
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_missing_object_is_found_and_other_failures_are_not() {
        let message = "MountVolume.SetUp failed for volume \"c\" : configmap \"settings\" not found";
        assert_eq!(
            found(&RULE, [event_of("Pod", "web", "FailedMount", message)]),
            ["Pod a/web: ".to_owned() + message]
        );
        assert_eq!(found(&RULE, [event_of("Pod", "web", "FailedMount", "mount failed: exit status 32")]), [""; 0]);
    }
}
