//! H11: a quota or a policy refuses what a controller makes.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::events::told_by_events;
use crate::rules::lines::says;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "H11", title: "a quota or policy refuses pods", layer: Layer::Workload, explains: &[], find };

/// Of quotas, of the security that a namespace asks for, and of the bounds of a LimitRange.
const FORMS: &[&[&str]] = &[
    &["exceeded quota"],
    &["violates PodSecurity"],
    &["is forbidden", "maximum ", " usage per "],
    &["is forbidden", "minimum ", " usage per "],
    &["is forbidden", " max limit to request ratio per "],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        ("See what is used and what may be", "kubectl describe quota,limitrange -A"),
        ("Ask for less, or raise it", ""),
    ]);
    told_by_events(evidence, &repair, |reason, message| reason == "FailedCreate" && says(message, FORMS))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_quota_that_is_used_up_is_found() {
        let message = "Error creating: pods \"web-1\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2";
        assert_eq!(found(&RULE, [event_of("ReplicaSet", "web", "FailedCreate", message)]).len(), 1);
        for why in ["maximum memory usage per Container is 16Mi, but limit is 64Mi", "minimum cpu usage per Pod is 1"] {
            let message = format!("Error creating: pods \"web-1\" is forbidden: {why}");
            assert_eq!(found(&RULE, [event_of("ReplicaSet", "web", "FailedCreate", &message)]).len(), 1);
        }
        let other = "Error creating: pods \"web-1\" is forbidden: error looking up service account a/b";
        assert_eq!(found(&RULE, [event_of("ReplicaSet", "web", "FailedCreate", other)]), [""; 0]);
        assert_eq!(found(&RULE, [event_of("ReplicaSet", "web", "SuccessfulCreate", "Created pod: web-1")]), [""; 0]);
    }
}
