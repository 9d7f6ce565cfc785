//! F7: the kernel ended a part of the cluster itself for want of memory.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::machine::told_by_kernel;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Seconds for which it counts.
const SPAN: i64 = 3600;
/// Names as the kernel has them: fifteen letters at most.
const PARTS: &[&str] = &[
    "kube-apiserver",
    "kube-controller",
    "kube-scheduler",
    "etcd",
    "kubelet",
    "containerd",
    "containerd-shim",
    "crio",
    "dockerd",
    "kube-proxy",
    "coredns",
    "kedge",
    "calico-node",
    "flanneld",
    "cilium-agent",
];

pub(super) const RULE: Rule = Rule {
    id: "F7",
    title: "a part of the cluster was ended for want of memory",
    layer: Layer::Hardware,
    explains: &[
        Explains { ids: &["A15", "A16", "B3", "B4", "H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["E1", "E2", "E4", "E6", "E12", "E13", "W1", "W2", "W3"], scope: Scope::SameNode },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let is_part = |line: &str| victim(line).is_some_and(|name| PARTS.contains(&name));
    told_by_kernel(evidence, SPAN, is_part, |line| {
        let repair = Repair::of(&[
            ("See who takes the memory", "ps -eo rss,cmd --sort=-rss | head"),
            ("A control plane needs 2 GiB and more; give the machine more, or move other work away", ""),
            (
                "Give pods limits, so that they are ended instead",
                "kubectl describe nodes | grep -A8 'Allocated resources'",
            ),
        ]);
        (format!("the kernel ended {}: {line}", victim(line).unwrap_or_default()), repair)
    })
}

/// The name in `Killed process 1 (name)`, of either wording.
fn victim(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("Killed process ").or_else(|| line.split_once("Kill process "))?;
    rest.split_once('(')?.1.split_once(')').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn ended_parts_are_found_and_work_is_not() {
        for line in [
            "Out of memory: Killed process 812 (kube-apiserver) total-vm:1234kB, anon-rss:1kB",
            "Memory cgroup out of memory: Killed process 900 (etcd) total-vm:1234kB",
            "Out of memory: Kill process 812 (kube-controller) score 900 or sacrifice child",
        ] {
            assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 60)]).len(), 1, "{line}");
        }
        let work = "Memory cgroup out of memory: Killed process 901 (java) total-vm:1234kB";
        assert_eq!(found_among(&RULE, [ago(kernel_logged(work), 60)]), [""; 0]);
    }
}
