//! D19: a control plane was reset, and etcd still counts it as a member.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::lines::{says, told_of_machines};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "D19",
    title: "a reset left its member in etcd",
    layer: Layer::Etcd,
    explains: &[Explains { ids: &["D10"], scope: Scope::Anywhere }],
    find,
};

const FORMS: &[&[&str]] = &[
    &["Failed to remove etcd member"],
    &["failed to remove etcd member"],
    &["please manually remove this etcd member"],
    &["etcdserver: re-configuration failed due to not enough started members"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    told_of_machines(
        evidence,
        |line| says(&line.text, FORMS),
        |line| says(&line.text, &[&["Removed the etcd member"], &["removed etcd member"]]),
        |line| {
            let mut repair = Repair::of(&[
                ("On a control plane that is left, see the members", "etcdctl member list -w table"),
                (
                    "Remove the one whose machine is gone; removing another one costs the majority",
                    "etcdctl member remove ID",
                ),
                ("And its Node", "kubectl delete node NAME"),
            ]);
            repair.dangerous = true;
            (format!("the machine went, and etcd still waits for it: {line}"), repair)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_member_that_stayed_is_found() {
        let line = "W0722 removeetcdmember.go:67] [reset] Failed to remove etcd member: etcdserver: unhealthy cluster, please manually remove this etcd member using etcdctl";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", line)]).len(), 1);
        assert_eq!(
            found_among(
                &RULE,
                [pasted("kubeadm", "[reset] Deleted contents of the etcd data directory: /var/lib/etcd")]
            ),
            [""; 0]
        );
    }
}
