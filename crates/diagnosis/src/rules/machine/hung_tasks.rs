//! F6: tasks wait for a disk or a server without end.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::lines::{one_of_each_machine, says};
use crate::rules::machine::told_by_kernel;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Seconds for which it counts: the kernel says it every two minutes, ten times at most.
const SPAN: i64 = 1200;
/// Parts of a node that must not wait.
const PARTS: &[&str] =
    &["kubelet", "containerd", "containerd-shim", "runc", "crio", "dockerd", "etcd", "kube-apiserver", "kedge"];

/// Words in what waits for a server of files.
const SERVERS: &[&str] = &["nfs", "rpc", "fuse", "cifs", "autofs", "ceph"];

pub(super) const RULE: Rule = Rule {
    id: "F6",
    title: "tasks wait for a disk without end",
    layer: Layer::Hardware,
    explains: &[
        Explains { ids: &["B1", "B4", "E2", "E4", "E5", "E6", "E17", "W1", "W2"], scope: Scope::SameNode },
        Explains { ids: &["A1", "A15", "A16", "H2", "H3"], scope: Scope::Anywhere },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let forms: &[&[&str]] = &[&["task ", "blocked for more than", "seconds"]];
    let told = told_by_kernel(
        evidence,
        SPAN,
        |line| says(line, forms),
        |line| (format!("the kernel sees it: {line}"), repair()),
    );
    one_of_each_machine(waiting(evidence).chain(told))
}

/// Parts of the node that wait now, and would go on after a moment if it were a busy disk.
fn waiting(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    let stuck = evidence.processes().filter(|(_, _, process)| {
        let program = process.command.first().map_or("", |word| word.rsplit('/').next().unwrap_or_default());
        process.state == 'D' && PARTS.iter().any(|part| program == *part || program.starts_with("containerd-shim"))
    });
    stuck.filter(|(_, _, process)| !process.waits_in.is_empty()).map(|(index, item, process)| {
        let text = format!(
            "{} ({}) waits in {} and cannot be interrupted",
            process.command.join(" "),
            process.pid,
            process.waits_in
        );
        let mut finding =
            Finding::failure(Subject::machine(&item.place), item, Certainty::Possible, text, vec![index], repair());
        // A disk that has much to do answers in the end; a server that is gone does not.
        if !SERVERS.iter().any(|word| process.waits_in.contains(word)) {
            finding.severity = Severity::Warning;
        }
        finding
    })
}

fn repair() -> Repair {
    Repair::of(&[
        ("See what waits, and where", "ps -eo pid,stat,wchan:32,cmd | awk '$2 ~ /^D/'"),
        ("See which device does not answer", "iostat -x 1 3; multipath -ll; cat /proc/mounts | grep nfs"),
        ("A server of files that is gone", "umount -f -l MOUNTPOINT"),
        ("Where the way to the disk comes back, everything goes on; else only a reboot helps", ""),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_hung_task_is_found_while_it_is_new() {
        let line = "INFO: task kubelet:1234 blocked for more than 120 seconds.";
        assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 60)]).len(), 1);
        assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 7200)]), [""; 0]);
    }

    #[test]
    fn a_part_of_the_node_that_waits_is_found_and_others_are_not() {
        assert_eq!(found_among(&RULE, [process("/usr/bin/containerd", 'D', "nfs_wait_bit_killable")]).len(), 1);
        assert_eq!(found_among(&RULE, [process("/usr/bin/containerd", 'S', "ep_poll")]), [""; 0]);
        assert_eq!(found_among(&RULE, [process("dd if=/dev/zero", 'D', "io_schedule")]), [""; 0]);
    }
}
