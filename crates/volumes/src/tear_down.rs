//! The end of a pod's volumes.
//!
//! Safe to repeat. Invariant: nothing is removed while something is mounted below it.

use std::io;
use std::path::Path;

use crate::mount_table::unmount_below;

/// What of a pod's directory belongs to its volumes.
const PARTS: [&str; 3] = ["volume-subpaths", "volumes", "plugins"];

/// Takes down everything below a pod's directory and removes it.
pub(crate) fn remove(pod_dir: &Path) -> io::Result<()> {
    if !pod_dir.exists() {
        return Ok(());
    }
    unmount_below(pod_dir)?;
    match std::fs::remove_dir_all(pod_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Takes down the volumes of a pod that has ended, but keeps its directory.
pub(crate) fn remove_volumes(pod_dir: &Path) -> io::Result<()> {
    for part in PARTS {
        let directory = pod_dir.join(part);
        if directory.exists() {
            unmount_below(&directory)?;
            std::fs::remove_dir_all(&directory)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tearing_down_what_is_not_there_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        let pod = directory.path().join("uid");
        remove(&pod).unwrap();
        std::fs::create_dir_all(pod.join("volumes/kubernetes.io~empty-dir/v")).unwrap();
        std::fs::write(pod.join("etc-hosts"), "x").unwrap();
        remove_volumes(&pod).unwrap();
        assert!(!pod.join("volumes").exists() && pod.join("etc-hosts").exists());
        remove(&pod).unwrap();
        assert!(!pod.exists());
    }
}
