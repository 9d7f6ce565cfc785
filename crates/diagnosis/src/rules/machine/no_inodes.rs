//! F3: a file system takes no further files although bytes are left, or holds bytes of files that are deleted.

use crate::evidence::Evidence;
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "F3",
    title: "a disk is full in another way than by its bytes",
    layer: Layer::Hardware,
    explains: &[
        Explains { ids: &["A1", "A15", "A16", "H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["B14", "E2", "E4", "E6", "F1", "W1", "W2"], scope: Scope::SameNode },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let disks = evidence.pick(|fact| match fact {
        Fact::FileSystem(disk) if disk.inodes > 0 => Some(disk),
        _ => None,
    });
    let inodes = disks.filter_map(|(index, item, disk)| {
        let percent = disk.inodes_free.saturating_mul(100) / disk.inodes;
        let severity = match percent {
            0 => Severity::Failure,
            1..5 => Severity::Warning,
            _ => return None,
        };
        let text = format!(
            "{} has {} of {} inodes left: files cannot be made, although bytes are free",
            disk.path, disk.inodes_free, disk.inodes
        );
        let repair = Repair::of(&[
            ("See it", &format!("df -i {}", disk.path)),
            (
                "See which directories have most files",
                &format!("find {} -xdev -printf '%h\\n' | sort | uniq -c | sort -rn | head", disk.path),
            ),
            ("Images that nothing uses", "crictl rmi --prune"),
        ]);
        let mut finding = Finding::failure(
            Subject::new("FileSystem", &disk.path),
            item,
            Certainty::Proven,
            text,
            vec![index],
            repair,
        );
        finding.severity = severity;
        Some(finding)
    });
    inodes.chain(deleted(evidence)).collect()
}

/// A tenth of a disk and more that deleted files hold, where the disk is nearly full.
fn deleted(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    evidence.measures("deleted_open_bytes").filter_map(|(index, item, held)| {
        let mut disks = evidence.pick(|fact| match fact {
            Fact::FileSystem(disk) if disk.size > 0 => Some(disk),
            _ => None,
        });
        let (disk_index, _, disk) = disks.find(|(_, other, disk)| {
            let is_nearly_full = disk.available.saturating_mul(100) / disk.size < 10;
            other.place == item.place && is_nearly_full && held.value * 10.0 > disk.size as f64
        })?;
        let text = format!(
            "{} holds {:.1} GiB of deleted files open, which {} misses",
            held.of,
            held.value / f64::from(1 << 30),
            disk.path
        );
        let repair = Repair::of(&[
            ("See them", "lsof -nP +L1 | sort -k7 -n | tail"),
            ("Let their program close them: restart it", ""),
        ]);
        let proof = vec![index, disk_index];
        Some(Finding::failure(Subject::new("Process", &held.of), item, Certainty::Proven, text, proof, repair))
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn used_up_inodes_are_found_and_file_systems_without_bound_are_not() {
        assert_eq!(found_among(&RULE, [disk("/var", 1000, 900, 1000, 3)]).len(), 1);
        assert_eq!(found_among(&RULE, [disk("/var", 1000, 900, 1000, 700)]), [""; 0]);
        assert_eq!(found_among(&RULE, [disk("/var", 1000, 900, 0, 0)]), [""; 0]);
    }

    #[test]
    fn deleted_files_matter_where_the_disk_is_full() {
        let held = || measured("deleted_open_bytes", "java (7)", 400.0, None);
        assert_eq!(found_among(&RULE, [held(), disk("/var", 1000, 20, 0, 0)]).len(), 1);
        assert_eq!(found_among(&RULE, [held(), disk("/var", 1000, 500, 0, 0)]), [""; 0]);
        assert_eq!(found_among(&RULE, [disk("/var", 1000, 20, 0, 0)]), [""; 0]);
    }
}
