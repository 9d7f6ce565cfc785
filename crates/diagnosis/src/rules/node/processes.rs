//! E14: a node is short of process ids.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{condition, subject, text};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "E14",
    title: "a machine is short of process ids",
    layer: Layer::System,
    explains: &[Explains { ids: &["W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, node) in evidence.objects("Node") {
        let Some(condition) = condition(node, "PIDPressure").filter(|condition| condition["status"] == "True") else {
            continue;
        };
        let name = text(&node["metadata"]["name"]);
        let message = text(&condition["message"]);
        let repair = Repair::of(&[("See who has them", "ps -eo pid,nlwp,cmd --sort=-nlwp | head")]);
        let text = format!("{name}: {message}");
        found.push(Finding::failure(subject(node), item, Certainty::Proven, text, vec![index], repair).on_node(name));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn pressure_is_found_and_its_absence_is_not() {
        let node = |status: &str| {
            node(
                "one",
                json!([{"type": "PIDPressure", "status": status, "message": "kubelet has insufficient PID available"}]),
            )
        };
        assert_eq!(found(&RULE, [node("True")]).len(), 1);
        assert_eq!(found(&RULE, [node("False")]), [""; 0]);
    }
}
