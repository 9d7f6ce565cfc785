//! F12: SELinux or AppArmor refuses the node's own parts their files.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::lines::says;
use crate::rules::machine::told_by_kernel;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Seconds for which it counts.
const SPAN: i64 = 900;
/// Programs and directories of a node: what a container is refused is its own business.
const OURS: &[&str] = &[
    "comm=\"kubelet\"",
    "comm=\"containerd\"",
    "comm=\"runc\"",
    "comm=\"crio\"",
    "comm=\"kube-",
    "comm=\"etcd\"",
    "comm=\"kedge\"",
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/etc/kubernetes",
    "/var/lib/etcd",
    "/etc/cni",
    "/opt/cni",
    "container_file_t",
    "name=\"kubelet\"",
    "path=\"/var/lib/etcd",
];

pub(super) const RULE: Rule = Rule {
    id: "F12",
    title: "a policy of the system refuses the node's own files",
    layer: Layer::System,
    explains: &[Explains { ids: &["A15", "E4", "E6", "W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let forms: &[&[&str]] = &[&["avc:", "denied"], &["apparmor=\"DENIED\""]];
    let is_ours =
        |line: &str| says(line, forms) && !line.contains("permissive=1") && OURS.iter().any(|word| line.contains(word));
    told_by_kernel(evidence, SPAN, is_ours, |line| {
        let repair = Repair::of(&[
            ("See what was refused", "ausearch -m avc -ts recent; dmesg | grep DENIED"),
            (
                "Install the policy for containers; do not switch SELinux off",
                "dnf install container-selinux && restorecon -RFv /var/lib/kubelet /var/lib/etcd /etc/kubernetes /opt/cni",
            ),
            (
                "AppArmor: load the profile that is named, or mend it",
                "aa-status; apparmor_parser -r /etc/apparmor.d/PROFILE",
            ),
        ]);
        (format!("a part of the node was refused a file: {line}"), repair)
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn refusals_of_the_nodes_parts_are_found() {
        for line in [
            "audit: type=1400 audit(1.2:3): avc:  denied  { write } for  pid=1 comm=\"kubelet\" name=\"plugins\" dev=\"sda1\" scontext=system_u:system_r:init_t:s0 tcontext=x tclass=dir permissive=0",
            "audit: type=1400 audit(1.2:3): apparmor=\"DENIED\" operation=\"open\" profile=\"/usr/bin/x\" name=\"/etc/kubernetes/pki/ca.crt\" pid=7 comm=\"x\"",
        ] {
            assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 60)]).len(), 1, "{line}");
        }
    }

    #[test]
    fn what_a_container_is_refused_and_what_is_only_noted_is_not() {
        for line in [
            "audit: apparmor=\"DENIED\" operation=\"ptrace\" profile=\"cri-containerd.apparmor.d\" pid=7 comm=\"gdb\" requested_mask=\"read\"",
            "audit: avc:  denied  { write } for pid=1 comm=\"kubelet\" permissive=1",
        ] {
            assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 60)]), [""; 0], "{line}");
        }
    }
}
