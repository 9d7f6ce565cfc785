//! F2: a node is short of disk while its disks are fine: a small file system of the runtime is full, or a bound is wrong.

use serde_json::Value;

use crate::evidence::{Evidence, Item, Place};
use crate::facts::{Fact, FileSystemFact};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{condition, list, text};
use crate::rules::{Explains, Layer, Rule, Scope};

/// A bound of the kubelet that asks for more than this part of a disk is a mistake.
const MOST_PERCENT: f64 = 40.0;

pub(super) const RULE: Rule = Rule {
    id: "F2",
    title: "a disk counts as full that is not",
    layer: Layer::Hardware,
    explains: &[Explains { ids: &["F1", "E4", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    small_ones(evidence).chain(wrong_bounds(evidence)).collect()
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

/// A kubelet that is told to evict long before the disk is full.
fn wrong_bounds(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    let pressed = evidence
        .objects("Node")
        .filter(|(_, _, node)| condition(node, "DiskPressure").is_some_and(|condition| condition["status"] == "True"));
    pressed.filter_map(|(index, item, node)| {
        let name = text(&node["metadata"]["name"]);
        let place = Place::Node(name.to_owned());
        let (document, signal, percent) = too_large_bound(evidence, &place)?;
        let told = format!(
            "the kubelet of {name} evicts when {signal} is below {percent} %: that is a mistake in its configuration"
        );
        let repair = Repair::of(&[
            ("See the bounds; 10 % and 15 % are the defaults", "grep -A8 evictionHard /var/lib/kubelet/config.yaml"),
            ("Mend them, and start the kubelet", "systemctl restart kubelet"),
        ]);
        let proof = vec![index, document];
        Some(Finding::failure(Subject::new("Node", name), item, Certainty::Proven, told, proof, repair).on_node(name))
    })
}

fn too_large_bound(evidence: &Evidence, place: &Place) -> Option<(usize, &'static str, f64)> {
    let kubelets = evidence.documents("kubelet").filter(|(_, item, _)| item.place == *place);
    kubelets.into_iter().find_map(|(index, _, kubelet): (usize, &Item, &Value)| {
        ["nodefs.available", "imagefs.available"].into_iter().find_map(|signal| {
            let percent: f64 = text(&kubelet["evictionHard"][signal]).strip_suffix('%')?.parse().ok()?;
            (percent > MOST_PERCENT).then_some((index, signal, percent))
        })
    })
}

fn file_systems(evidence: &Evidence) -> impl Iterator<Item = (usize, &Item, &FileSystemFact)> {
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

    #[test]
    fn a_bound_that_asks_for_half_the_disk_is_found() {
        let pressed = || on("one", Fact::Object(node("one", json!([{"type": "DiskPressure", "status": "True"}]))));
        let kubelet = |bound: &str| document("kubelet", json!({"evictionHard": {"nodefs.available": bound}}));
        assert_eq!(found_among(&RULE, [pressed(), kubelet("80%")]).len(), 1);
        assert_eq!(found_among(&RULE, [pressed(), kubelet("10%")]), [""; 0]);
        assert_eq!(found_among(&RULE, [kubelet("80%")]), [""; 0]);
    }
}
