//! W4: pods name a ServiceAccount that does not exist.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::events::told_by_events;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "W4",
    title: "pods name a ServiceAccount that does not exist",
    layer: Layer::Workload,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        ("See which ones there are", "kubectl -n NAMESPACE get serviceaccounts"),
        ("Make it, or name another one", "kubectl -n NAMESPACE create serviceaccount NAME"),
    ]);
    told_by_events(evidence, &repair, |reason, message| {
        reason == "FailedCreate" && message.contains("error looking up service account")
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_missing_account_is_found_and_a_used_up_quota_is_another_matter() {
        let message = "Error creating: pods \"web-1\" is forbidden: error looking up service account a/builder: serviceaccount \"builder\" not found";
        assert_eq!(found(&RULE, [event_of("ReplicaSet", "web", "FailedCreate", message)]).len(), 1);
        let made = json!({"kind": "ReplicaSet", "metadata": {"namespace": "a", "name": "web"}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        assert_eq!(found(&RULE, [event_of("ReplicaSet", "web", "FailedCreate", message), made]), [""; 0]);
        let other = "Error creating: pods \"web-1\" is forbidden: exceeded quota: q";
        assert_eq!(found(&RULE, [event_of("ReplicaSet", "web", "FailedCreate", other)]), [""; 0]);
    }
}
