//! D10: init or join waited for the control plane, and it never became healthy.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::lines::{says, told_of_machines};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "D10",
    title: "the control plane did not come up during init or join",
    layer: Layer::Controllers,
    explains: &[],
    find,
};

const FORMS: &[&[&str]] = &[
    &["[control-plane-check]", "is not healthy after"],
    &["failed while waiting for the control plane to start"],
    &["error execution phase wait-control-plane"],
    &["couldn't initialize a Kubernetes cluster"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    told_of_machines(
        evidence,
        |line| says(&line.text, FORMS),
        |line| {
            says(&line.text, &[&["control-plane has initialized successfully"], &["This node has joined the cluster"]])
        },
        |line| {
            let repair = Repair::of(&[
                ("See which component ends, and its last words", "crictl ps -a | grep -E 'kube-|etcd'"),
                ("And let the machine be looked at", "kedge doctor node"),
            ]);
            (format!("the control plane was waited for in vain: {line}"), repair)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_wait_in_vain_is_found_in_old_and_new_words() {
        for line in [
            "[control-plane-check] kube-scheduler is not healthy after 4m0.00s",
            "error execution phase wait-control-plane: couldn't initialize a Kubernetes cluster",
        ] {
            assert_eq!(found_among(&RULE, [pasted("kubeadm", line)]).len(), 1, "{line}");
        }
        let healthy = "[control-plane-check] kube-scheduler is healthy after 5.5s";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", healthy)]), [""; 0]);
    }
}
