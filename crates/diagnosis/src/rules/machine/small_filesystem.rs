//! F2: a node is short of disk while its disks are fine: a small file system of the runtime is full, or a bound is wrong.

use crate::evidence::{Evidence, Item, Place};
use crate::facts::{Fact, FileSystemFact};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{list, text};
use crate::rules::machine::eviction_bound;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "F2",
    title: "a disk counts as full that is not",
    layer: Layer::Hardware,
    explains: &[Explains { ids: &["F1", "E4", "H1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    small_ones(evidence).chain(eviction_bound::find(evidence)).collect()
}

/// A file system in memory that holds state of the runtime.
fn small_ones(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    file_systems(evidence)
        .filter(|(_, item, disk)| is_full(disk) && is_runtimes_memory(evidence, &item.place, &disk.path))
        .map(|(index, item, disk)| {
            let mebibytes = disk.size >> 20;
            let text =
                format!("{} is a file system in memory of {mebibytes} MiB, and it is full; the disk is not", disk.path);
            let repair = Repair::of(&[
                ("See what is in it", &format!("du -xh --max-depth=2 {} | sort -h | tail", disk.path)),
                ("Make it larger now", &format!("mount -o remount,size=1G {}", disk.path)),
                (
                    "Move the runtime's root to a disk: root and state in its configuration",
                    "grep -E '^(root|state)' /etc/containerd/config.toml",
                ),
            ]);
            Finding::failure(Subject::new("FileSystem", &disk.path), item, Certainty::Proven, text, vec![index], repair)
        })
}

pub(super) fn file_systems(evidence: &Evidence) -> impl Iterator<Item = (usize, &Item, &FileSystemFact)> {
    evidence.pick(|fact| match fact {
        Fact::FileSystem(disk) if disk.size > 0 => Some(disk),
        _ => None,
    })
}

fn is_full(disk: &FileSystemFact) -> bool {
    disk.available.saturating_mul(100) / disk.size < 10
}

/// Whether a path holds state of the runtime, and lies on a file system in memory. Logs in memory fill up like any disk.
pub(super) fn is_runtimes_memory(evidence: &Evidence, place: &Place, path: &str) -> bool {
    let is_runtimes = path.starts_with("/run") || path.starts_with("/var/run") || path.starts_with("/var/lib");
    is_runtimes && is_in_memory(evidence, place, path)
}

fn is_in_memory(evidence: &Evidence, place: &Place, path: &str) -> bool {
    let mounts = evidence.documents("mounts").filter(|(_, item, _)| item.place == *place);
    let below = |mount: &str| {
        mount == "/" || path == mount || path.strip_prefix(mount).is_some_and(|rest| rest.starts_with('/'))
    };
    let mounts = mounts.flat_map(|(_, _, mounts)| list(mounts)).filter(|mount| below(text(&mount["path"])));
    let innermost = mounts.max_by_key(|mount| text(&mount["path"]).len());
    innermost.is_some_and(|mount| matches!(text(&mount["kind"]), "tmpfs" | "ramfs"))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_full_file_system_in_memory_is_found_and_a_disk_is_not() {
        let mounts =
            |kind: &str| document("mounts", json!([{"path": "/", "kind": "ext4"}, {"path": "/run", "kind": kind}]));
        let state = || disk("/run/containerd", 1000, 20, 0, 0);
        assert_eq!(found_among(&RULE, [mounts("tmpfs"), state()]).len(), 1);
        assert_eq!(found_among(&RULE, [mounts("ext4"), state()]), [""; 0]);
        assert_eq!(found_among(&RULE, [mounts("tmpfs"), disk("/run/containerd", 1000, 900, 0, 0)]), [""; 0]);
        let logs = document("mounts", json!([{"path": "/", "kind": "ext4"}, {"path": "/var/log", "kind": "tmpfs"}]));
        assert_eq!(found_among(&RULE, [logs, disk("/var/log", 1000, 0, 0, 0)]), [""; 0]);
    }
}
