//! What is mounted in this process's mount namespace, and the mounts that need no program.
//!
//! Invariant: the table is read anew each time; nothing is remembered that the kernel knows better.

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};

/// Every mount point of this process, in the order in which they were made.
pub(crate) fn mount_points() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(|path| PathBuf::from(unescape(path))).collect()
}

pub(crate) fn is_mount_point(path: &Path) -> bool {
    mount_points().iter().any(|mounted| mounted == path)
}

/// Spaces and their like are octal in mountinfo.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Mounts a file system in memory, of half the machine's memory where no size is given.
pub(crate) fn mount_tmpfs(path: &Path, bytes: Option<i64>) -> io::Result<()> {
    let options = bytes.map(|bytes| format!("size={bytes}"));
    nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), options.as_deref())?;
    Ok(())
}

/// Mounts a file system of huge pages of one size.
pub(crate) fn mount_huge_pages(path: &Path, page_bytes: i64) -> io::Result<()> {
    let options = format!("pagesize={page_bytes}");
    nix::mount::mount(Some("nodev"), path, Some("hugetlbfs"), MsFlags::empty(), Some(options.as_str()))?;
    Ok(())
}

/// The last mount goes first. What stays mounted must stop the removal, or a bind mount's content would be deleted.
pub(crate) fn unmount_below(directory: &Path) -> io::Result<()> {
    for mounted in mount_points().iter().rev().filter(|mounted| mounted.starts_with(directory)) {
        nix::mount::umount2(mounted, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape("/a\\040b\\134"), "/a b\\");
        assert!(mount_points().contains(&PathBuf::from("/proc")) || mount_points().contains(&PathBuf::from("/")));
    }
}
