//! The end of CSI volumes: unpublished for the pod, and unstaged after the last pod.
//!
//! It works from what is on disk alone, so it is the same for a pod that just ended and for one that a former process left
//! behind. Invariant: nothing is removed that the driver has not let go of.

use std::path::Path;

use super::block::BlockPlaces;
use super::drivers::Registered;
use super::record::{self, VolumeRecord};
use super::{PLUGIN, said};
use crate::mount_table::is_mount_point;
use crate::set_up::Volumes;

/// Takes down all CSI volumes of a pod.
pub(crate) async fn pod(volumes: &Volumes, pod_uid: &str) -> Result<(), String> {
    let dirs = &volumes.deps.dirs;
    let mut problems = Vec::new();
    for (directory, note) in record::all(&dirs.volumes_of(pod_uid, PLUGIN)) {
        if let Err(error) = unmount(volumes, &directory, &note).await {
            problems.push(format!("UnmountVolume.TearDown failed for volume {:?} : {error}", note.spec_volume));
        }
    }
    let links = dirs.device(pod_uid, PLUGIN, "");
    for entry in std::fs::read_dir(&links).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Err(error) = unmap(volumes, pod_uid, &name, &entry.path()).await {
            problems.push(format!("UnmapVolume.UnmapPodDevice failed for volume {name:?} : {error}"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// Unstages volumes that no pod uses: a former process ended between two steps.
pub(crate) async fn orphans(volumes: &Volumes) {
    let root = volumes.deps.dirs.csi_root();
    for driver in std::fs::read_dir(root).into_iter().flatten().flatten() {
        for (_, note) in record::all(&driver.path()) {
            // A pod that is being set up holds the lock; the next round comes soon.
            let _lock = volumes.csi.locks.lock(&note.driver_name, &note.volume_handle).await;
            if let Err(error) = unstage(volumes, &note).await {
                tracing::debug!(driver = note.driver_name, handle = note.volume_handle, error, "a volume stays staged");
            }
        }
    }
}

async fn unmount(volumes: &Volumes, directory: &Path, note: &VolumeRecord) -> Result<(), String> {
    let _lock = volumes.csi.locks.lock(&note.driver_name, &note.volume_handle).await;
    let target = directory.join("mount");
    let registered = driver(volumes, note)?;
    let unpublished = registered.driver.unpublish(&note.volume_handle, &target).await;
    unpublished.map_err(|error| said(format!("mounter.TearDownAt failed: {error}")))?;
    if is_mount_point(&target) {
        return Err(said(format!("mounter.TearDownAt failed: the driver left {} mounted", target.display())));
    }
    record::remove(directory, &target).map_err(|error| {
        said(format!("mounter.TearDownAt failed to clean mount dir [{}]: {error}", target.display()))
    })?;
    unstage(volumes, note).await
}

/// Unstages a volume if no pod uses it any more. The caller holds its lock.
async fn unstage(volumes: &Volumes, note: &VolumeRecord) -> Result<(), String> {
    let place = volumes.deps.dirs.csi_staging(&note.driver_name, &note.volume_handle);
    let staged = record::load(&place).map_err(|error| error.to_string())?;
    if staged.is_none() || is_used(volumes, note) {
        return Ok(());
    }
    let staging = place.join("globalmount");
    let registered = driver(volumes, note)?;
    let unstaged = registered.driver.unstage(&note.volume_handle, &staging).await;
    unstaged.map_err(|error| said(format!("attacher.UnmountDevice failed: {error}")))?;
    volumes.csi.staged.lock().remove(&staging);
    if is_mount_point(&staging) {
        return Err(said(format!("attacher.UnmountDevice failed: the driver left {} mounted", staging.display())));
    }
    record::remove(&place, &staging).map_err(|error| error.to_string())
}

fn is_used(volumes: &Volumes, note: &VolumeRecord) -> bool {
    let dirs = &volumes.deps.dirs;
    dirs.pod_uids()
        .iter()
        .any(|uid| record::all(&dirs.volumes_of(uid, PLUGIN)).iter().any(|(_, other)| other.same_volume(note)))
}

async fn unmap(volumes: &Volumes, pod_uid: &str, spec_name: &str, link: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let places = BlockPlaces::new(volumes, pod_uid, spec_name);
    let Some(note) = record::load(&places.data).map_err(text)? else {
        return std::fs::remove_file(link).map_err(text);
    };
    let _lock = volumes.csi.locks.lock(&note.driver_name, &note.volume_handle).await;
    let registered = driver(volumes, &note)?;
    let unpublished = registered.driver.unpublish(&note.volume_handle, &places.publish).await;
    unpublished.map_err(|error| error.to_string())?;
    if places.publish.symlink_metadata().is_ok() {
        std::fs::remove_file(&places.publish).map_err(text)?;
    }
    std::fs::remove_file(link).map_err(text)?;
    let publish_dir = places.publish.parent().unwrap_or(&places.publish);
    if std::fs::read_dir(publish_dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Ok(());
    }
    if places.staging.exists() {
        let unstaged = registered.driver.unstage(&note.volume_handle, &places.staging).await;
        unstaged.map_err(|error| error.to_string())?;
    }
    for directory in [&places.staging, publish_dir] {
        if directory.exists() {
            std::fs::remove_dir(directory).map_err(text)?;
        }
    }
    let parent = places.data.parent().unwrap_or(&places.data).to_owned();
    record::remove(&places.data, &places.data.join("none")).and_then(|()| std::fs::remove_dir(parent)).map_err(text)
}

fn driver(volumes: &Volumes, note: &VolumeRecord) -> Result<std::sync::Arc<Registered>, String> {
    let found = volumes.csi.drivers.get(&note.driver_name);
    found.map_err(|error| said(format!("mounter.SetUpAt failed to get CSI client: {error}")))
}
