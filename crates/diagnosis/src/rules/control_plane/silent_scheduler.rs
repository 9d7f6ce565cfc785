//! H2: pods wait and no scheduler has said why.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{condition, is_excerpt, is_leaving, is_older_than, list, text};
use crate::rules::{Layer, Rule};

/// A scheduler says of every pod within seconds where it goes or why it does not.
const PATIENCE: i64 = 60;

pub(super) const RULE: Rule =
    Rule { id: "H2", title: "no scheduler is at work", layer: Layer::Controllers, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let waiting: Vec<_> = evidence
        .objects("Pod")
        .filter(|(_, _, pod)| {
            text(&pod["spec"]["nodeName"]).is_empty()
                && matches!(text(&pod["spec"]["schedulerName"]), "" | "default-scheduler")
                && list(&pod["spec"]["schedulingGates"]).next().is_none()
                && condition(pod, "PodScheduled").is_none()
                && !is_leaving(pod)
                && !is_excerpt(pod)
                && is_older_than(pod, PATIENCE, evidence.gathered)
        })
        .collect();
    let Some((_, item, _)) = waiting.first() else { return Vec::new() };
    let repair = Repair::of(&[
        ("See whether it runs, and what it said last", "kubectl -n kube-system get pods -l component=kube-scheduler"),
        ("On its machine, also without an API server", "kedge doctor node"),
    ]);
    let text = format!("{} pods wait without a word of a scheduler for over {PATIENCE} s", waiting.len());
    let proof = waiting.iter().map(|(index, _, _)| *index).collect();
    vec![Finding::failure(Subject::new("Component", "kube-scheduler"), item, Certainty::Likely, text, proof, repair)]
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn pods_without_a_word_are_found() {
        assert_eq!(found(&RULE, [old(pod("a", "web", json!({}), json!({"phase": "Pending"})))]).len(), 1);
    }

    #[test]
    fn young_gated_refused_and_foreign_pods_are_not() {
        let refused = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"}]});
        let mut printed = pod("a", "printed", json!({}), json!({"phase": "Pending"}));
        printed["excerpt"] = json!(true);
        assert_eq!(
            found(
                &RULE,
                [
                    pod("a", "young", json!({}), json!({"phase": "Pending"})),
                    old(pod("a", "gated", json!({"schedulingGates": [{"name": "x"}]}), json!({}))),
                    old(pod("a", "refused", json!({}), refused)),
                    old(pod("a", "foreign", json!({"schedulerName": "batch"}), json!({}))),
                    old(printed),
                ]
            ),
            [""; 0]
        );
    }
}
