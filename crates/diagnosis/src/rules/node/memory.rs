//! E13: a node is short of memory.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::lines::one_of_each_machine;
use crate::rules::node::by_condition;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Twice what the kubelet keeps free.
const LEAST: f64 = 200.0 * 1_048_576.0;

pub(super) const RULE: Rule = Rule {
    id: "E13",
    title: "a machine is short of memory",
    layer: Layer::Hardware,
    explains: &[Explains { ids: &["H1", "W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let holds = |condition: &Value| condition["status"] == "True";
    let pressed = by_condition(evidence, "MemoryPressure", holds, |_| repair());
    let little = evidence.measures("memory_available_bytes").filter(|(_, _, free)| free.value < LEAST);
    let little = little.map(|(index, item, free)| {
        let text =
            format!("{:.0} MiB of memory are left: below 100 MiB pods are evicted", free.value / f64::from(1 << 20));
        let mut finding =
            Finding::failure(Subject::machine(&item.place), item, Certainty::Proven, text, vec![index], repair());
        finding.severity = Severity::Warning;
        finding
    });
    one_of_each_machine(pressed.into_iter().chain(little))
}

fn repair() -> Repair {
    Repair::of(&[
        ("See who takes it", "kubectl top pods -A --sort-by=memory"),
        ("On the machine", "ps -eo rss,cmd --sort=-rss | head"),
    ])
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
                json!([{"type": "MemoryPressure", "status": status, "message": "kubelet has insufficient memory available"}]),
            )
        };
        assert_eq!(found(&RULE, [node("True")]).len(), 1);
        assert_eq!(found(&RULE, [node("False")]), [""; 0]);
    }

    #[test]
    fn little_memory_is_foreseen() {
        let free = |mebibytes: f64| measured("memory_available_bytes", "machine", mebibytes * 1_048_576.0, Some(2e9));
        assert_eq!(found_among(&RULE, [free(150.0)]), ["150 MiB of memory are left: below 100 MiB pods are evicted"]);
        assert_eq!(found_among(&RULE, [free(900.0)]), [""; 0]);
    }
}
