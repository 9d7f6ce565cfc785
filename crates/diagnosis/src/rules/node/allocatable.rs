//! E16: a kubelet cannot put its bounds on all pods together.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::events::told_by_events;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "E16", title: "pods of a machine are not bounded together", layer: Layer::Kubelet, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        (
            "See which group it wants",
            "grep -E 'Cgroup|enforceNodeAllocatable|cgroupDriver' /var/lib/kubelet/config.yaml",
        ),
        (
            "The groups of systemReservedCgroup and kubeReservedCgroup must exist before the kubelet starts",
            "mkdir -p /sys/fs/cgroup/NAME",
        ),
        (
            "The driver must be the runtime's: SystemdCgroup in containerd's configuration",
            "grep SystemdCgroup /etc/containerd/config.toml",
        ),
    ]);
    told_by_events(evidence, &repair, |reason, _| reason == "FailedNodeAllocatableEnforcement")
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn the_kubelets_event_is_found() {
        let event =
            |reason: &str| event_of("Node", "one", reason, "Failed to update Node Allocatable Limits [\"kubepods\"]");
        assert_eq!(found(&RULE, [event("FailedNodeAllocatableEnforcement")]).len(), 1);
        assert_eq!(found(&RULE, [event("NodeAllocatableEnforced")]), [""; 0]);
    }
}
