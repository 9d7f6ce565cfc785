//! E14: a node is short of process ids.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::node::by_condition;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "E14",
    title: "a machine is short of process ids",
    layer: Layer::System,
    explains: &[Explains { ids: &["W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let holds = |condition: &Value| condition["status"] == "True";
    by_condition(evidence, "PIDPressure", holds, |_| {
        Repair::of(&[("See who has them", "ps -eo pid,nlwp,cmd --sort=-nlwp | head")])
    })
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
