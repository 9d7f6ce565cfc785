//! E14: a node is short of process ids.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::lines::{one_of_each_machine, says, told_of_machines};
use crate::rules::node::by_condition;
use crate::rules::{Explains, Layer, Rule, Scope};

/// The part of all process ids at which it is said.
const NEARLY: f64 = 0.85;

pub(super) const RULE: Rule = Rule {
    id: "E14",
    title: "a machine is short of process ids",
    layer: Layer::System,
    explains: &[Explains { ids: &["H1", "W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let holds = |condition: &Value| condition["status"] == "True";
    let pressed = by_condition(evidence, "PIDPressure", holds, |_| repair());
    let forms: &[&[&str]] =
        &[&["fork/exec", "resource temporarily unavailable"], &["pthread_create", "temporarily unavailable"]];
    let told = told_of_machines(
        evidence,
        |line| says(&line.text, forms),
        |_| false,
        |line| (format!("no further process can be made: {line}"), repair()),
    );
    let many = evidence.measures("threads").filter_map(|(index, item, threads)| {
        let limit = threads.limit.filter(|limit| threads.value > limit * NEARLY)?;
        let text = format!("{} of {limit} process ids are taken", threads.value);
        let mut finding =
            Finding::failure(Subject::machine(&item.place), item, Certainty::Proven, text, vec![index], repair());
        finding.severity = Severity::Warning;
        Some(finding)
    });
    one_of_each_machine(pressed.into_iter().chain(told).chain(many))
}

fn repair() -> Repair {
    Repair::of(&[
        ("See who has them", "ps -eo pid,nlwp,cmd --sort=-nlwp | head"),
        ("Allow more, if they are wanted", "sysctl -w kernel.pid_max=4194304"),
        ("Bound what a pod may have: podPidsLimit in the kubelet's configuration", ""),
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
                json!([{"type": "PIDPressure", "status": status, "message": "kubelet has insufficient PID available"}]),
            )
        };
        assert_eq!(found(&RULE, [node("True")]).len(), 1);
        assert_eq!(found(&RULE, [node("False")]), [""; 0]);
    }

    #[test]
    fn a_machine_that_runs_out_is_found_by_its_count_and_its_words() {
        assert_eq!(found_among(&RULE, [measured("threads", "machine", 31_000.0, Some(32_768.0))]).len(), 1);
        assert_eq!(found_among(&RULE, [measured("threads", "machine", 900.0, Some(32_768.0))]), [""; 0]);
        let line = "E0722 remote_runtime.go:1] fork/exec /usr/bin/runc: resource temporarily unavailable";
        assert_eq!(found_among(&RULE, [logged("kubelet", line)]).len(), 1);
        assert_eq!(found_among(&RULE, [logged("kubelet", "fork/exec /usr/bin/x: no such file or directory")]), [""; 0]);
    }
}
