//! `local` volumes: a directory of this node, bound into the pod's own place, or a block device of this node.
//!
//! Invariant: what is below the path is never removed, only the bind mount is.

use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{LocalVolumeSource, Pod};
use nix::mount::MsFlags;

use crate::dirs::VolumeDirs;
use crate::mount_table::is_mount_point;
use crate::pod;

const PLUGIN: &str = "kubernetes.io/local-volume";

/// Binds the directory, once.
pub(crate) fn ensure(
    dirs: &VolumeDirs,
    pod: &Pod,
    name: &str,
    source: &LocalVolumeSource,
    read_only: bool,
) -> Result<PathBuf, String> {
    let text = |error: std::io::Error| error.to_string();
    let kind = std::fs::metadata(&source.path).map_err(|_| format!("path {:?} does not exist", source.path))?;
    if !kind.is_dir() {
        let what = "only directories and, for block volumes, block devices can be used";
        return Err(format!("local: {:?} is not a directory: {what}", source.path));
    }
    let directory = dirs.volume(pod::uid(pod), PLUGIN, name);
    if is_mount_point(&directory) {
        return Ok(directory);
    }
    std::fs::create_dir_all(&directory).map_err(text)?;
    bind(Path::new(&source.path), &directory, read_only).map_err(text)?;
    Ok(directory)
}

fn bind(source: &Path, target: &Path, read_only: bool) -> std::io::Result<()> {
    nix::mount::mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    if read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        nix::mount::mount(Some(source), target, None::<&str>, flags, None::<&str>)?;
    }
    Ok(())
}

/// The link to the block device.
pub(crate) fn ensure_device(
    dirs: &VolumeDirs,
    pod: &Pod,
    name: &str,
    source: &LocalVolumeSource,
) -> Result<PathBuf, String> {
    let is_block = std::fs::metadata(&source.path).is_ok_and(|metadata| metadata.file_type().is_block_device());
    if !is_block {
        return Err(format!("{:?} is not a block device", source.path));
    }
    let link = dirs.device(pod::uid(pod), PLUGIN, name);
    let made = link.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| symlink(&source.path, &link));
    match made {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(link),
        result => result.map(|()| link).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        let dirs = VolumeDirs::new("/nowhere");
        let source = LocalVolumeSource { path: "/no/such/path".to_owned(), fs_type: None };
        let pod = Pod::default();
        assert_eq!(ensure(&dirs, &pod, "pv", &source, false), Err("path \"/no/such/path\" does not exist".to_owned()));
        let device = ensure_device(&dirs, &pod, "pv", &source);
        assert_eq!(device, Err("\"/no/such/path\" is not a block device".to_owned()));
    }
}
