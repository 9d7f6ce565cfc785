//! The end of a pod's volumes.
//!
//! Safe to repeat. Invariant: nothing is removed while something is mounted below it, or while a driver still has it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::csi;
use crate::csi::record;
use crate::mount_table::unmount_below;
use crate::set_up::Volumes;

/// What of a pod's directory belongs to its volumes.
const PARTS: [&str; 4] = ["volume-subpaths", "volumes", "volumeDevices", "plugins"];

/// Why a pod's volumes are still there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TearDownError(String);

impl From<io::Error> for TearDownError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl Volumes {
    /// Watches for plug-ins, until shutdown.
    pub async fn run(self: Arc<Self>) {
        let shutdown: CancellationToken = self.shutdown.clone();
        tokio::join!(csi::plugin_watch::run(self.clone(), shutdown.clone()), announce(&self, &shutdown),);
    }

    /// Takes down the volumes of a pod that has ended, but keeps its directory.
    pub async fn tear_down(&self, pod_uid: &str) -> Result<(), TearDownError> {
        self.ended.lock().insert(pod_uid.to_owned());
        self.tokens.forget(pod_uid);
        let directory = self.deps.dirs.pod(pod_uid);
        // A sub-path holds its volume.
        blocking({
            let sub_paths = directory.join(PARTS[0]);
            move || remove_part(&sub_paths)
        })
        .await?;
        csi::tear_down::pod(self, pod_uid).await.map_err(TearDownError)?;
        blocking(move || PARTS.iter().try_for_each(|part| remove_part(&directory.join(part)))).await
    }

    /// Takes down everything below a pod's directory and removes it.
    pub async fn remove_pod(&self, pod_uid: &str) -> Result<(), TearDownError> {
        let directory = self.deps.dirs.pod(pod_uid);
        if !directory.exists() {
            return Ok(());
        }
        self.tear_down(pod_uid).await?;
        blocking(move || remove(&directory)).await?;
        self.ended.lock().remove(pod_uid);
        Ok(())
    }

    /// Removes what pods that are gone left behind: their directories, and volumes that stayed staged.
    pub async fn remove_orphans(&self, pod_uids: Vec<String>) {
        let Ok(_one) = self.sweeping.try_lock() else { return };
        for uid in pod_uids {
            if let Err(error) = self.remove_pod(&uid).await {
                tracing::warn!(uid, %error, "failed to remove the directory of a pod that is gone");
            }
        }
        csi::tear_down::orphans(self).await;
    }

    /// The names of volumes that a controller must not detach, for `node.status.volumesInUse`.
    pub fn in_use(&self) -> Vec<String> {
        let dirs = &self.deps.dirs;
        let mut names = BTreeSet::new();
        for uid in dirs.pod_uids() {
            let mut notes = record::all(&dirs.volumes_of(&uid, csi::PLUGIN));
            let devices = std::fs::read_dir(dirs.device(&uid, csi::PLUGIN, "")).into_iter().flatten().flatten();
            let data = devices.map(|entry| dirs.csi_devices().join(entry.file_name()).join("data"));
            notes.extend(data.filter_map(|data| Some((data.clone(), record::load(&data).ok()??))));
            let attached = notes.into_iter().filter(|(_, note)| !note.attachment_id.is_empty());
            names.extend(
                attached.map(|(_, note)| format!("{}/{}^{}", csi::PLUGIN, note.driver_name, note.volume_handle)),
            );
        }
        names.into_iter().collect()
    }
}

/// The CSINode exists also on a node without drivers, as others look for it.
async fn announce(volumes: &Volumes, shutdown: &CancellationToken) {
    let mut pause = std::time::Duration::from_millis(500);
    while let Err(error) = volumes.csi.node_info.ensure().await {
        tracing::debug!(error, "there is no CSINode for this node yet");
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(std::time::Duration::from_secs(60));
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), TearDownError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| TearDownError(error.to_string())),
        Err(error) => Err(TearDownError(error.to_string())),
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    unmount_below(directory)?;
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn remove_part(directory: &Path) -> io::Result<()> {
    if directory.exists() { remove(directory) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tearing_down_what_is_not_there_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        let pod = directory.path().join("uid");
        remove_part(&pod).unwrap();
        std::fs::create_dir_all(pod.join("volumes/kubernetes.io~empty-dir/v")).unwrap();
        std::fs::write(pod.join("etc-hosts"), "x").unwrap();
        remove_part(&pod.join("volumes")).unwrap();
        assert!(!pod.join("volumes").exists() && pod.join("etc-hosts").exists());
        remove(&pod).unwrap();
        assert!(!pod.exists());
        remove(&pod).unwrap();
    }
}
