//! I15: a volume has another file system than the one that it should be mounted as.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::events::told_by_events;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "I15",
    title: "a volume has another file system than its class says",
    layer: Layer::Workload,
    explains: &[Explains { ids: &["I6"], scope: Scope::SameSubject }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut repair = Repair::of(&[
        ("Which one does it have? On its machine", "blkid /dev/DEVICE"),
        (
            "Say so in the volume or its class (fsType); a volume that is empty can be made anew",
            "kubectl get pv,storageclass -o yaml | grep -i fstype",
        ),
    ]);
    repair.dangerous = true;
    told_by_events(evidence, &repair, |reason, message| {
        reason == "FailedMountOnFilesystemMismatch"
            || (reason == "FailedMount" && message.contains("wrong fs type, bad option, bad superblock"))
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn another_file_system_is_found() {
        let event = |reason: &str, message: &str| event_of("PersistentVolume", "pv", reason, message);
        assert_eq!(found(&RULE, [event("FailedMountOnFilesystemMismatch", "MountVolume failed for volume \"pv\" : failed to mount the volume as \"ext4\", it already contains xfs. Mount error: mount failed: exit status 32")]).len(), 1);
        assert_eq!(
            found(
                &RULE,
                [event(
                    "FailedMount",
                    "mount failed: exit status 32 Output: mount: wrong fs type, bad option, bad superblock on /dev/sdb"
                )]
            )
            .len(),
            1
        );
        assert_eq!(
            found(&RULE, [event("FailedMount", "MountVolume.SetUp failed for volume \"c\" : secret \"x\" not found")]),
            [""; 0]
        );
    }
}
