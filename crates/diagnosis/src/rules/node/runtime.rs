//! E4: a node is not ready because its container runtime is down.

use serde_json::Value;

use crate::action::Action;
use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;
use crate::rules::lines::one_of_each_machine;
use crate::rules::node::by_condition;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Units of runtimes.
const RUNTIMES: &[&str] = &["containerd", "crio", "docker", "cri-docker"];

pub(super) const RULE: Rule = Rule {
    id: "E4",
    title: "the container runtime of a machine does not answer",
    layer: Layer::Runtime,
    explains: &[Explains { ids: &["D9", "E2", "E6", "H1", "W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let holds = |ready: &Value| {
        let message = text(&ready["message"]);
        ready["status"] == "False"
            && ["container runtime is down", "container runtime not ready", "Container runtime not ready"]
                .iter()
                .any(|words| message.contains(words))
            && !message.contains("container runtime network not ready")
    };
    let by_nodes = by_condition(evidence, "Ready", holds, |_| repair());
    one_of_each_machine(seen(evidence).into_iter().chain(by_nodes))
}

/// On the machine itself: the runtime's socket does not answer, or its unit does not run.
fn seen(evidence: &Evidence) -> Vec<Finding> {
    let silent = evidence.measures("runtime_answers").filter(|(_, _, answers)| answers.value == 0.0);
    let silent = silent.map(|(index, item, answers)| {
        let runtimes = evidence.units().filter(|(_, other, unit)| {
            other.place == item.place && RUNTIMES.contains(&unit.name.as_str()) && unit.active != "active"
        });
        let stopped: Vec<(usize, String)> =
            runtimes.map(|(index, _, unit)| (index, format!("; {} is {}", unit.name, unit.active))).collect();
        let units: String = stopped.iter().map(|(_, text)| text.as_str()).collect();
        let text = format!("no container runtime answers at {}{units}", answers.of);
        let proof = std::iter::once(index).chain(stopped.iter().map(|(index, _)| *index)).collect();
        Finding::failure(Subject::machine(&item.place), item, Certainty::Proven, text, proof, repair())
    });
    silent.collect()
}

fn repair() -> Repair {
    Repair::of(&[
        ("See what the runtime says", "journalctl -u containerd -n 50 --no-pager"),
        ("Where Kedge runs its own", "tail -n 50 /var/lib/kedge/containerd/containerd.log"),
        ("Restart it: containers go on meanwhile", "systemctl restart containerd"),
    ])
    .acting(2, Action::StartUnit { name: "containerd".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_runtime_that_is_down_is_found_and_a_missing_network_is_not() {
        let node = |message: &str| node("one", json!([{"type": "Ready", "status": "False", "message": message}]));
        assert_eq!(found(&RULE, [node("container runtime is down")]).len(), 1);
        assert_eq!(found(&RULE, [node("cni plugin not initialized")]), [""; 0]);
    }

    #[test]
    fn a_socket_that_does_not_answer_is_found() {
        let answers = |value: f64| measured("runtime_answers", "unix:///run/containerd/containerd.sock", value, None);
        let found = found_among(&RULE, [answers(0.0), unit("containerd", "failed", "enabled")]);
        assert!(found.len() == 1 && found[0].ends_with("containerd.sock; containerd is failed"), "{found:?}");
        assert_eq!(found_among(&RULE, [answers(1.0)]), [""; 0]);
        assert_eq!(found_among(&RULE, [unit("crio", "inactive", "disabled")]), [""; 0]);
    }
}
