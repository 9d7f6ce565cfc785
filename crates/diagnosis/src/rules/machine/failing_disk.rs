//! F4: a disk or its file system fails.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{list, text};
use crate::rules::lines::{one_of_each_machine, says};
use crate::rules::machine::{DAY, FILE_SYSTEM_EFFECTS, told_by_kernel};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "F4",
    title: "a disk or its file system fails",
    layer: Layer::Hardware,
    explains: FILE_SYSTEM_EFFECTS,
    find,
};

const FORMS: &[&[&str]] = &[
    &["EXT4-fs error"],
    &["EXT4-fs", "Remounting filesystem read-only"],
    &["Remounting filesystem read-only"],
    &["Aborting journal on device"],
    &["Buffer I/O error on dev"],
    &["I/O error, dev "],
    &["blk_update_request: I/O error"],
    &["critical medium error"],
];
/// Drives that need not hold a medium.
const REMOVABLE: &[&str] = &["fd0", "sr0"];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let is_failing = |line: &str| says(line, FORMS) && !REMOVABLE.iter().any(|name| line.contains(name));
    let told =
        told_by_kernel(evidence, DAY, is_failing, |line| (format!("the kernel cannot use a disk: {line}"), repair()));
    one_of_each_machine(read_only(evidence).chain(told))
}

/// A disk under the cluster's files that takes no writes.
fn read_only(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    let mounts = evidence
        .documents("mounts")
        .flat_map(|(index, item, mounts)| list(mounts).map(move |mount| (index, item, mount)));
    let read_only = mounts.filter(|(_, _, mount)| {
        let path = text(&mount["path"]);
        let is_ours = ["/var/lib/kubelet", "/var/lib/containerd", "/var/lib/etcd", "/var/log", "/var/lib", "/var"]
            .contains(&path);
        mount["readOnly"] == true
            && is_ours
            && matches!(text(&mount["kind"]), "ext2" | "ext3" | "ext4" | "btrfs" | "xfs")
    });
    read_only.map(|(index, item, mount)| {
        let text = format!("{} on {} takes no writes", text(&mount["source"]), text(&mount["path"]));
        Finding::failure(Subject::machine(&item.place), item, Certainty::Likely, text, vec![index], repair())
    })
}

fn repair() -> Repair {
    let mut repair = Repair::of(&[
        (
            "Move the work elsewhere first",
            "kubectl cordon NODE && kubectl drain NODE --ignore-daemonsets --delete-emptydir-data",
        ),
        ("See what the disk says of itself", "smartctl -a /dev/DISK"),
        ("Unmounted, let it be checked; a failing disk is replaced instead", "fsck -f /dev/DISK"),
    ]);
    repair.dangerous = true;
    repair
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn errors_of_a_disk_are_found_for_a_day() {
        for line in [
            "EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2: comm kubelet: reading directory lblock 0",
            "blk_update_request: I/O error, dev sda, sector 12345",
            "Buffer I/O error on dev dm-0, logical block 5, async page read",
            "EXT4-fs (sda1): Remounting filesystem read-only",
        ] {
            assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 3600)]).len(), 1, "{line}");
            assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 100_000)]), [""; 0]);
        }
        for line in [
            "I/O error, dev fd0, sector 0",
            "EXT4-fs (sda1): mounted filesystem with ordered data mode",
            "EXT4-fs (sda1): re-mounted. Opts: errors=remount-ro",
        ] {
            assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 60)]), [""; 0], "{line}");
        }
    }

    #[test]
    fn a_disk_that_takes_no_writes_is_found() {
        let mounts = |path: &str, is: bool| {
            document("mounts", json!([{"path": path, "kind": "ext4", "readOnly": is, "source": "/dev/sdb1"}]))
        };
        assert_eq!(found_among(&RULE, [mounts("/var/lib/kubelet", true)]).len(), 1);
        assert_eq!(found_among(&RULE, [mounts("/var/lib/kubelet", false)]), [""; 0]);
        assert_eq!(found_among(&RULE, [mounts("/mnt/cdrom", true)]), [""; 0]);
    }
}
