//! Use of volumes and of other files of pods, remembered for a minute because counting files is work for the disk.
//!
//! Invariant: what is not asked for any more is forgotten.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use crate::filesystem::{DiskUsage, file_system, tree_usage};
use crate::summary::{PvcReference, VolumeStats};
use crate::target::{VolumeMeasure, VolumeTarget};

/// Upstream's period for the use of volumes.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Trees that were counted.
#[derive(Debug, Default)]
pub(crate) struct Trees {
    counted: HashMap<PathBuf, Counted>,
    round: u64,
}

#[derive(Debug)]
struct Counted {
    at: Timestamp,
    usage: Option<DiskUsage>,
    round: u64,
}

impl Trees {
    /// What a tree uses, or used within the last minute.
    pub(crate) fn usage(&mut self, path: &Path, now: Timestamp) -> Option<DiskUsage> {
        let round = self.round;
        if let Some(counted) = self.counted.get_mut(path)
            && is_fresh(counted.at, now, MAX_AGE)
        {
            counted.round = round;
            return counted.usage;
        }
        let usage = tree_usage(path);
        self.counted.insert(path.to_owned(), Counted { at: now, usage, round });
        usage
    }

    /// Ends a round of samples.
    pub(crate) fn end_round(&mut self) {
        let round = self.round;
        self.counted.retain(|_, counted| counted.round == round);
        self.round += 1;
    }
}

/// Whether something of `at` is young enough; what comes from the future is not.
pub(crate) fn is_fresh(at: Timestamp, now: Timestamp, max_age: Duration) -> bool {
    Duration::try_from(now.duration_since(at)).is_ok_and(|age| age < max_age)
}

/// Measures one volume, or says what its owner has measured.
pub(crate) fn measure(
    target: &VolumeTarget,
    namespace: &str,
    trees: &mut Trees,
    now: Timestamp,
) -> Option<VolumeStats> {
    let fs = match &target.measure {
        VolumeMeasure::Known(known) => known.clone()?,
        VolumeMeasure::Tree => file_system(&target.path)?.stats(now, trees.usage(&target.path, now)),
    };
    let claim = |name: &String| PvcReference { name: name.clone(), namespace: namespace.to_owned() };
    Some(VolumeStats { fs, name: target.name.clone(), pvc_ref: target.claim.as_ref().map(claim) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_counted_again_after_a_minute() {
        let directory = tempfile::tempdir().unwrap();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut trees = Trees::default();
        let empty = trees.usage(directory.path(), at(100)).unwrap();
        std::fs::write(directory.path().join("f"), "x").unwrap();
        assert_eq!(trees.usage(directory.path(), at(159)), Some(empty));
        assert_eq!(trees.usage(directory.path(), at(160)).unwrap().inodes, empty.inodes + 1);
        // The clock was set back.
        std::fs::write(directory.path().join("g"), "x").unwrap();
        assert_eq!(trees.usage(directory.path(), at(50)).unwrap().inodes, empty.inodes + 2);
        trees.end_round();
        trees.end_round();
        assert!(trees.counted.is_empty());
    }
}
