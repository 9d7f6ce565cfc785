//! fsGroup: the group that owns a volume and may use it.
//!
//! Invariant: symbolic links are never followed.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use crate::pod;

/// Gives a volume to the pod's group, as its change policy says.
pub(crate) fn apply(pod: &Pod, path: &Path, read_only: bool) -> Result<(), String> {
    let Some(group) = pod::fs_group(pod) else { return Ok(()) };
    let context = pod::spec(pod).security_context.as_ref();
    let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
    if policy == Some("OnRootMismatch") && root_matches(path, group) {
        return Ok(());
    }
    set(path, group, read_only).map_err(|error| format!("applyFSGroup failed: {error}"))
}

/// Gives everything below `path` to the group, with upstream's permissions: read (and write) for owner and group, and new
/// files inherit the group.
pub(crate) fn set(path: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if metadata.file_type().is_symlink() {
        return Ok(());
    }
    let mut mask = if read_only { 0o440 } else { 0o660 };
    if metadata.is_dir() {
        mask |= 0o2110;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(metadata.mode() & 0o7777 | mask))?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            set(&entry?.path(), group, read_only)?;
        }
    }
    Ok(())
}

/// Whether the volume's root is as [`set`] would make it.
pub(crate) fn root_matches(path: &Path, group: u32) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.gid() == group && metadata.mode() & 0o2770 == 0o2770)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_gets_read_and_write_and_links_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("v");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("f"), "x").unwrap();
        std::fs::set_permissions(root.join("f"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", root.join("l")).unwrap();
        let group = nix::unistd::getegid().as_raw();
        let before = std::fs::metadata("/etc/hostname").map(|metadata| metadata.mode()).ok();
        set(&root, group, false).unwrap();
        assert_eq!(std::fs::metadata(root.join("f")).unwrap().mode() & 0o777, 0o660);
        assert_eq!(std::fs::metadata(&root).unwrap().mode() & 0o2770, 0o2770);
        assert!(root_matches(&root, group));
        assert_eq!(std::fs::metadata("/etc/hostname").map(|metadata| metadata.mode()).ok(), before);
    }
}
