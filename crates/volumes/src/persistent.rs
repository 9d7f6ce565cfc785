//! Volumes behind claims: CSI, local, hostPath and NFS.
//!
//! Invariant: a claim's volume appears to containers in the mode that it has, as files or as a block device, and a container
//! that asks for the other one is refused.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolumeSpec, Pod};

use crate::claims::{self, ResolvedClaim};
use crate::csi::source::CsiSource;
use crate::failure::{Operation, VolumeError};
use crate::set_up::{BlockDevice, MountedVolumes, Volumes};
use crate::{csi, host_path, local, nfs, ownership, pod};

/// Makes the volume of a claim, or brings it up to date.
pub(crate) async fn ensure(
    volumes: &Volumes,
    pod: &Pod,
    name: &str,
    claim: &str,
    read_only: bool,
    own: bool,
    mounted: &mut MountedVolumes,
) -> Result<(), VolumeError> {
    let resolved = claims::resolve(volumes, pod, name, claim, own).await;
    let resolved = resolved.map_err(|error| {
        let whose = format!("{}/{claim}", pod::namespace(pod));
        VolumeError::new(Operation::Process, name, format!("error processing PVC {whose}: {error}"))
    })?;
    let spec = resolved.volume.spec.clone().unwrap_or_default();
    let pv_name = resolved.volume.metadata.name.clone().unwrap_or_default();
    let wrap = |message: String| VolumeError::set_up(&pv_name, message);
    let block = spec.volume_mode.as_deref() == Some("Block");
    check_mode(pod, name, block).map_err(wrap)?;
    if block {
        let path = device(volumes, pod, &pv_name, &resolved, read_only).await?;
        mounted.devices.insert(name.to_owned(), BlockDevice { path, read_only });
        return Ok(());
    }
    let path = match CsiSource::persistent(&resolved.volume, read_only) {
        Some(source) => {
            let (path, live) = csi::mount::ensure(volumes, pod, &source).await?;
            // A claim may grow while its pod runs.
            mounted.live = true;
            if live {
                tracing::trace!(volume = pv_name, "the driver is called again from time to time");
            }
            let grown = csi::expand::catch_up(volumes, pod, &source, &resolved).await;
            mounted.news.extend(csi::expand::news(&pv_name, &volumes.deps.node_name, grown));
            path
        }
        None => directory(volumes, pod, &pv_name, &spec, read_only).await.map_err(wrap)?,
    };
    if read_only || is_read_only(&spec) {
        mounted.read_only.push(name.to_owned());
    }
    mounted.paths.insert(name.to_owned(), path);
    Ok(())
}

fn is_read_only(spec: &PersistentVolumeSpec) -> bool {
    let csi = spec.csi.as_ref().and_then(|csi| csi.read_only);
    let nfs = spec.nfs.as_ref().and_then(|nfs| nfs.read_only);
    csi.or(nfs).unwrap_or(false)
}

/// Containers must ask for files or for a device, whichever it is.
fn check_mode(pod: &Pod, name: &str, block: bool) -> Result<(), String> {
    let as_device = pod::containers(pod)
        .any(|container| container.volume_devices.iter().flatten().any(|device| device.name == name));
    let as_files =
        pod::containers(pod).any(|container| container.volume_mounts.iter().flatten().any(|mount| mount.name == name));
    if block && as_files {
        return Err(format!("volume {name} has volumeMode Block, but is specified in volumeMounts"));
    }
    if !block && as_device {
        return Err(format!("volume {name} has volumeMode Filesystem, but is specified in volumeDevices"));
    }
    Ok(())
}

async fn device(
    volumes: &Volumes,
    pod: &Pod,
    pv_name: &str,
    resolved: &ResolvedClaim,
    read_only: bool,
) -> Result<PathBuf, VolumeError> {
    if let Some(source) = CsiSource::persistent(&resolved.volume, read_only) {
        return csi::block::ensure(volumes, pod, &source).await;
    }
    let fails = |message: String| VolumeError::new(Operation::SetUpDevice, pv_name, message);
    match resolved.volume.spec.as_ref().and_then(|spec| spec.local.as_ref()) {
        Some(source) => local::ensure_device(&volumes.deps.dirs, pod, pv_name, source).map_err(fails),
        None => Err(fails("no volume plugin matched".to_owned())),
    }
}

async fn directory(
    volumes: &Volumes,
    pod: &Pod,
    pv_name: &str,
    spec: &PersistentVolumeSpec,
    read_only: bool,
) -> Result<PathBuf, String> {
    if let Some(source) = &spec.local {
        let path = local::ensure(&volumes.deps.dirs, pod, pv_name, source, read_only)?;
        if !read_only {
            ownership::apply(pod, &path, false)?;
        }
        return Ok(path);
    }
    if let Some(source) = &spec.host_path {
        host_path::ensure(source)?;
        return Ok(PathBuf::from(&source.path));
    }
    if let Some(source) = &spec.nfs {
        let mut source = k8s_openapi::api::core::v1::NFSVolumeSource {
            path: source.path.clone(),
            server: source.server.clone(),
            read_only: source.read_only,
        };
        source.read_only = Some(read_only || source.read_only.unwrap_or(false));
        let options = spec.mount_options.clone().unwrap_or_default();
        return nfs::ensure(volumes, pod, pv_name, &source, &options).await;
    }
    let iscsi = if spec.iscsi.is_some() { ": this node has none for iscsi volumes" } else { "" };
    Err(format!("no volume plugin matched{iscsi}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_and_devices_are_not_mixed_up() {
        let pod = |list: &str| -> Pod {
            let container = json!({ "name": "c", list: [{ "name": "v", "mountPath": "/v", "devicePath": "/dev/v" }] });
            serde_json::from_value(json!({ "metadata": {}, "spec": { "containers": [container] } })).unwrap()
        };
        assert_eq!(check_mode(&pod("volumeMounts"), "v", false), Ok(()));
        assert_eq!(check_mode(&pod("volumeDevices"), "v", true), Ok(()));
        assert_eq!(
            check_mode(&pod("volumeMounts"), "v", true),
            Err("volume v has volumeMode Block, but is specified in volumeMounts".to_owned())
        );
        assert_eq!(
            check_mode(&pod("volumeDevices"), "v", false),
            Err("volume v has volumeMode Filesystem, but is specified in volumeDevices".to_owned())
        );
    }
}
