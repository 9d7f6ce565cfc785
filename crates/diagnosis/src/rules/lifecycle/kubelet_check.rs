//! D9: init or join waited for the kubelet, and it never answered.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::lines::{says, told_of_machines};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "D9",
    title: "the kubelet did not come up during init or join",
    layer: Layer::Kubelet,
    explains: &[Explains { ids: &["D10"], scope: Scope::SameNode }],
    find,
};

const FORMS: &[&[&str]] = &[
    &["[kubelet-check] The kubelet is not healthy after"],
    &["The kubelet is not healthy after"],
    &["[kubelet-check] It seems like the kubelet isn't running or healthy"],
    &["curl -sSL http://127.0.0.1:10248/healthz", "returned error"],
    &["curl -sSL http://localhost:10248/healthz", "failed with error"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    told_of_machines(
        evidence,
        |line| says(&line.text, FORMS),
        |line| line.text.contains("The kubelet is healthy after"),
        |_| {
            let repair = Repair::of(&[
                (
                    "Read the first line with which the kubelet ends",
                    "journalctl -u kubelet --no-pager | grep -m1 'command failed'",
                ),
                ("Where no service manager runs", "grep -m1 -i error /var/log/kedge-kubelet.log"),
                ("And let the machine be looked at", "kedge doctor node"),
            ]);
            (
                "the kubelet's health port 10248 did not answer: it ends again and again, or was not started"
                    .to_owned(),
                repair,
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn old_and_new_words_are_found_until_it_is_healthy() {
        for line in [
            "[kubelet-check] The kubelet is not healthy after 4m0.000531143s",
            "[kubelet-check] The HTTP call equal to 'curl -sSL http://localhost:10248/healthz' failed with error: Get \"http://localhost:10248/healthz\": dial tcp 127.0.0.1:10248: connect: connection refused.",
            "the HTTP call equal to 'curl -sSL http://127.0.0.1:10248/healthz' returned error: connection refused",
        ] {
            assert_eq!(found_among(&RULE, [pasted("kubeadm", line)]).len(), 1, "{line}");
            let healthy = pasted("kubeadm", "[kubelet-check] The kubelet is healthy after 1.001s");
            assert_eq!(found_among(&RULE, [pasted("kubeadm", line), healthy]), [""; 0]);
        }
        let waiting =
            "[kubelet-check] Waiting for a healthy kubelet at http://127.0.0.1:10248/healthz. This can take up to 4m0s";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", waiting)]), [""; 0]);
    }
}
