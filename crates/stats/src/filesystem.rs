//! Use of file systems and of trees of files.
//!
//! Blocking. Invariants: a tree is counted on its own file system only, and a file with several names once; a tree that is
//! larger than the bound is unknown and not half counted.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::summary::FsStats;

/// Entries of a tree that are counted at most.
const BOUND: u64 = 4_000_000;

/// A file system as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Bytes.
    pub capacity: u64,
    /// Bytes that unprivileged users can still write.
    pub available: u64,
    /// Bytes in use.
    pub used: u64,
    /// Inodes.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

/// What a tree of files uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of the blocks that are taken.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl FileSystem {
    /// As part of a summary; `usage` is what one purpose uses, where that is less than everything.
    pub(crate) fn stats(&self, time: Timestamp, usage: Option<DiskUsage>) -> FsStats {
        FsStats {
            time,
            available_bytes: Some(self.available),
            capacity_bytes: Some(self.capacity),
            used_bytes: usage.map(|usage| usage.bytes),
            inodes_free: Some(self.inodes_free),
            inodes: Some(self.inodes),
            inodes_used: usage.map(|usage| usage.inodes),
        }
    }

    /// Everything that is used.
    pub(crate) fn usage(&self) -> DiskUsage {
        DiskUsage { bytes: self.used, inodes: self.inodes.saturating_sub(self.inodes_free) }
    }
}

/// The file system that holds a path.
pub fn file_system(path: &Path) -> Option<FileSystem> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let block = stat.fragment_size();
    Some(FileSystem {
        capacity: stat.blocks() * block,
        available: stat.blocks_available() * block,
        used: stat.blocks().saturating_sub(stat.blocks_free()) * block,
        inodes: stat.files(),
        inodes_free: stat.files_free(),
    })
}

/// Use of the file system that holds a path, as a whole.
pub fn file_system_stats(path: &Path, time: Timestamp) -> Option<FsStats> {
    let system = file_system(path)?;
    Some(system.stats(time, Some(system.usage())))
}

/// What a file or a tree of files uses; `None` where it is not there, or too large to be counted.
pub fn tree_usage(path: &Path) -> Option<DiskUsage> {
    bounded_usage(path, BOUND)
}

fn bounded_usage(path: &Path, bound: u64) -> Option<DiskUsage> {
    let root = std::fs::symlink_metadata(path).ok()?;
    let mut usage = DiskUsage::default();
    let mut linked = HashSet::new();
    count(&root, &mut usage, &mut linked);
    let mut directories: Vec<PathBuf> = if root.is_dir() { vec![path.to_owned()] } else { Vec::new() };
    while let Some(directory) = directories.pop() {
        // Files come and go while they are counted.
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != root.dev() {
                continue;
            }
            count(&metadata, &mut usage, &mut linked);
            if usage.inodes > bound {
                return None;
            }
            if metadata.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Some(usage)
}

fn count(metadata: &Metadata, usage: &mut DiskUsage, linked: &mut HashSet<u64>) {
    if !metadata.is_dir() && metadata.nlink() > 1 && !linked.insert(metadata.ino()) {
        return;
    }
    usage.bytes += metadata.blocks() * 512;
    usage.inodes += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_counted_once() {
        let directory = tempfile::tempdir().unwrap();
        let before = tree_usage(directory.path()).unwrap();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        std::fs::write(directory.path().join("d/f"), vec![1; 10_000]).unwrap();
        std::fs::hard_link(directory.path().join("d/f"), directory.path().join("again")).unwrap();
        let usage = tree_usage(directory.path()).unwrap();
        assert_eq!(usage.inodes, before.inodes + 2);
        assert!(usage.bytes >= before.bytes + 10_000 && usage.bytes < before.bytes + 30_000, "{usage:?}");
        assert_eq!(bounded_usage(directory.path(), 1), None);
        assert_eq!(tree_usage(&directory.path().join("none")), None);
    }

    #[test]
    fn file_systems_have_a_size() {
        let found = file_system(Path::new("/")).unwrap();
        assert!(found.capacity > 0 && found.used <= found.capacity);
        assert_eq!(file_system(Path::new("/no/such/path")), None);
    }
}
