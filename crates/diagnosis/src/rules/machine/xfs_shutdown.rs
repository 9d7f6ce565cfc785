//! F5: XFS found itself damaged, and shut a file system down.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::lines::says;
use crate::rules::machine::{DAY, FILE_SYSTEM_EFFECTS, told_by_kernel};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "F5",
    title: "XFS shut a file system down",
    layer: Layer::Hardware,
    explains: FILE_SYSTEM_EFFECTS,
    find,
};

const FORMS: &[&[&str]] = &[
    &["XFS", "Shutting down filesystem"],
    &["XFS", "Filesystem has been shut down"],
    &["XFS", "Corruption of in-memory data"],
    &["XFS", "Metadata corruption detected"],
    &["XFS", "Log I/O Error Detected"],
    &["XFS", "Log I/O error", "detected"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    told_by_kernel(
        evidence,
        DAY,
        |line| says(line, FORMS),
        |line| {
            let mut repair = Repair::of(&[
                (
                    "Move the work elsewhere first",
                    "kubectl cordon NODE && kubectl drain NODE --ignore-daemonsets --delete-emptydir-data",
                ),
                (
                    "Unmount it, and mount it once, so that its log is played",
                    "umount /dev/DISK; mount /dev/DISK MOUNTPOINT; umount /dev/DISK",
                ),
                ("See what would be mended, then mend it", "xfs_repair -n /dev/DISK && xfs_repair /dev/DISK"),
            ]);
            repair.dangerous = true;
            (format!("the file system takes nothing until it is mended: {line}"), repair)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_shutdown_is_found_and_an_unmount_is_not() {
        for line in [
            "XFS (dm-2): Corruption of in-memory data (0x8) detected at xfs_defer_finish_noroll+0x2b0. Shutting down filesystem.",
            "XFS (sdb1): Log I/O Error Detected. Shutting down filesystem",
            "XFS (sdb1): Filesystem has been shut down due to log error (0x2).",
        ] {
            assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 60)]).len(), 1, "{line}");
        }
        assert_eq!(found_among(&RULE, [ago(kernel_logged("XFS (sdb1): Unmounting Filesystem"), 60)]), [""; 0]);
    }
}
