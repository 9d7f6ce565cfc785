//! I14: a volume of a pod is made of an object that is not there.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::events::latest_by_object;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "I14",
    title: "a pod mounts an object that does not exist",
    layer: Layer::Workload,
    explains: &[Explains { ids: &["W2"], scope: Scope::SameSubject }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let told = latest_by_object(evidence, |reason, message| {
        reason == "FailedMount"
            && message.contains("not found")
            && (message.contains("configmap") || message.contains("secret"))
    });
    let told = told.into_iter().map(|(subject, index, message)| {
        let name = subject.to_string();
        let repair = Repair::of(&[("Make the object, or correct its name in the pod", "")]);
        let item = &evidence.items[index];
        Finding::failure(subject, item, Certainty::Proven, format!("{name}: {message}"), vec![index], repair)
    });
    told.collect()
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
