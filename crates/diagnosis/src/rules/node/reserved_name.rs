//! E17: the runtime still works on a container that the kubelet gave up waiting for.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::object::text;
use crate::rules::events::told_by_events;
use crate::rules::lines::{one_of_each_machine, says, told_of_machines};
use crate::rules::workload::by_container;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "E17",
    title: "the runtime is too slow to make containers",
    layer: Layer::Runtime,
    explains: &[Explains { ids: &["W2"], scope: Scope::SameSubject }],
    find,
};

const FORMS: &[&[&str]] =
    &[&["failed to reserve sandbox name"], &["failed to reserve container name"], &["is reserved for"]];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = told_by_events(evidence, &repair(), |_, message| says(message, FORMS));
    let waiting = by_container(
        evidence,
        |_, status| says(text(&status["state"]["waiting"]["message"]), FORMS),
        |subject, status| (format!("{subject}: {}", text(&status["state"]["waiting"]["message"])), repair()),
    );
    found.extend(
        waiting
            .into_iter()
            .filter(|waiting| !found.iter().any(|known| known.subject == waiting.subject))
            .collect::<Vec<_>>(),
    );
    if !found.is_empty() {
        return found;
    }
    one_of_each_machine(told_of_machines(
        evidence,
        |line| says(&line.text, FORMS),
        |_| false,
        |line| (format!("the runtime still works on what it was asked for before: {line}"), repair()),
    ))
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "It goes on by itself once the earlier call ends; see what makes the disk slow",
            "cat /proc/pressure/io; iostat -x 1 3",
        ),
        ("See which containers are half made", "crictl ps -a --state Created"),
        ("If nothing moves for minutes, restart the runtime: containers go on", "systemctl restart containerd"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_name_that_is_taken_is_found_by_events_and_lines() {
        let message = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to reserve sandbox name \"web_a_1_0\": name \"web_a_1_0\" is reserved for \"abc\"";
        assert_eq!(found(&RULE, [event_of("Pod", "web", "FailedCreatePodSandBox", message)]).len(), 1);
        assert_eq!(
            found_among(
                &RULE,
                [logged(
                    "containerd",
                    "level=error msg=\"RunPodSandbox failed\" error=\"failed to reserve sandbox name \\\"x\\\"\""
                )]
            )
            .len(),
            1
        );
        let network = "Failed to create pod sandbox: plugin type=\"flannel\" failed (add)";
        assert_eq!(found(&RULE, [event_of("Pod", "web", "FailedCreatePodSandBox", network)]), [""; 0]);
    }
}
