//! H11: a quota or a policy refuses what a controller makes.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::events::told_by_events;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "H11", title: "a quota or policy refuses pods", layer: Layer::Workload, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        ("See what is used and what may be", "kubectl describe quota -A"),
        ("Ask for less, or raise it", ""),
    ]);
    told_by_events(evidence, &repair, |reason, message| {
        reason == "FailedCreate" && (message.contains("exceeded quota") || message.contains("violates PodSecurity"))
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_quota_that_is_used_up_is_found() {
        let message = "Error creating: pods \"web-1\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2";
        assert_eq!(found(&RULE, [event_of("ReplicaSet", "web", "FailedCreate", message)]).len(), 1);
        assert_eq!(found(&RULE, [event_of("ReplicaSet", "web", "SuccessfulCreate", "Created pod: web-1")]), [""; 0]);
    }
}
