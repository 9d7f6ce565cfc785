//! emptyDir volumes: a directory of the pod's, on disk or in memory.
//!
//! Invariant: what a container wrote stays until the pod ends, whatever is restarted meanwhile.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use kedge_meta::Quantity;

use crate::dirs::{VolumeDirs, write_marker};
use crate::mount_table::{is_mount_point, mount_tmpfs};
use crate::ownership;
use crate::pod;

const PLUGIN: &str = "kubernetes.io/empty-dir";

/// Makes the directory, once.
pub(crate) fn ensure(
    dirs: &VolumeDirs,
    pod: &Pod,
    volume: &str,
    source: &EmptyDirVolumeSource,
) -> Result<PathBuf, String> {
    let directory = dirs.volume(pod::uid(pod), PLUGIN, volume);
    let marker = dirs.ready_marker(pod::uid(pod), PLUGIN, volume);
    if marker.exists() && directory.exists() {
        return Ok(directory);
    }
    let text = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(&directory).map_err(text)?;
    mount(&directory, source)?;
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).map_err(text)?;
    ownership::apply(pod, &directory, false)?;
    write_marker(&marker).map_err(text)?;
    Ok(directory)
}

fn mount(directory: &Path, source: &EmptyDirVolumeSource) -> Result<(), String> {
    match source.medium.as_deref().unwrap_or_default() {
        "" => Ok(()),
        "Memory" if is_mount_point(directory) => Ok(()),
        "Memory" => {
            let limit = source.size_limit.as_ref().and_then(|limit| limit.0.parse::<Quantity>().ok());
            let bytes = limit.map(Quantity::units).filter(|bytes| *bytes > 0);
            mount_tmpfs(directory, bytes).map_err(|error| error.to_string())
        }
        medium => Err(format!("unknown storage medium {medium:?}")),
    }
}
