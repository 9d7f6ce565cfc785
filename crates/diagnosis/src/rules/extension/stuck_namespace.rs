//! H9: a namespace does not end.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{list, subject, text};
use crate::rules::{Layer, Rule};

const SIGNS: [&str; 5] = [
    "NamespaceContentRemaining",
    "NamespaceDeletionContentFailure",
    "NamespaceDeletionDiscoveryFailure",
    "NamespaceDeletionGroupVersionParsingFailure",
    "NamespaceFinalizersRemaining",
];

pub(super) const RULE: Rule =
    Rule { id: "H9", title: "a namespace does not end", layer: Layer::Workload, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, namespace) in evidence.objects("Namespace") {
        if namespace["status"]["phase"] != "Terminating" {
            continue;
        }
        let signs = list(&namespace["status"]["conditions"])
            .filter(|condition| condition["status"] == "True" && SIGNS.contains(&text(&condition["type"])));
        let messages: Vec<&str> = signs.map(|condition| text(&condition["message"])).collect();
        if messages.is_empty() {
            continue;
        }
        let name = text(&namespace["metadata"]["name"]);
        let text = format!("{name} is ending and cannot: {}", messages.join("; "));
        let repair = Repair::of(&[(
            "Bring back whoever takes the finalizers off, or take them off yourself once you know what they guard",
            &format!("kubectl get namespace {name} -o yaml"),
        )]);
        found.push(Finding::failure(subject(namespace), item, Certainty::Likely, text, vec![index], repair));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn one_that_says_why_it_stays_is_found_and_one_that_ends_is_not() {
        let namespace = |conditions: serde_json::Value| {
            json!({"kind": "Namespace", "metadata": {"name": "a"},
            "status": {"phase": "Terminating", "conditions": conditions}})
        };
        let stuck = json!([{"type": "NamespaceFinalizersRemaining", "status": "True", "message": "Some content in the namespace has finalizers remaining: x in 1 resource instances"}]);
        assert_eq!(found(&RULE, [namespace(stuck)]).len(), 1);
        assert_eq!(found(&RULE, [namespace(json!([]))]), [""; 0]);
    }
}
