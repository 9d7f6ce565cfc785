//! Where volumes lie below the node agent's root directory.
//!
//! Invariant: the places are upstream's, so that plug-ins, tools and another kubelet find what is there.

use std::path::{Path, PathBuf};

use crate::csi;
use crate::csi::source::staging_name;

/// The directories of volumes.
#[derive(Debug, Clone)]
pub struct VolumeDirs {
    root: PathBuf,
}

impl VolumeDirs {
    /// Below the node agent's root directory, upstream's `/var/lib/kubelet`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Every pod has a directory here, named by its uid.
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Everything of one pod.
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// A volume of a pod, by the name of its plug-in, such as `kubernetes.io/configmap`.
    pub fn volume(&self, uid: &str, plugin: &str, volume: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(escape(plugin)).join(volume)
    }

    /// All volumes of a pod that one plug-in made.
    pub(crate) fn volumes_of(&self, uid: &str, plugin: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(escape(plugin))
    }

    /// The link to a pod's block device.
    pub(crate) fn device(&self, uid: &str, plugin: &str, volume: &str) -> PathBuf {
        self.pod(uid).join("volumeDevices").join(escape(plugin)).join(volume)
    }

    /// The sockets of plug-ins that want to be known.
    pub(crate) fn plugins_registry(&self) -> PathBuf {
        self.root.join("plugins_registry")
    }

    /// Where CSI volumes lie that pods share: a directory for each driver.
    pub(crate) fn csi_root(&self) -> PathBuf {
        self.root.join("plugins").join(csi::PLUGIN)
    }

    /// The place of a staged CSI volume.
    pub(crate) fn csi_staging(&self, driver: &str, handle: &str) -> PathBuf {
        self.csi_root().join(driver).join(staging_name(handle))
    }

    /// CSI block devices.
    pub(crate) fn csi_devices(&self) -> PathBuf {
        self.csi_root().join("volumeDevices")
    }

    /// What is known about a pod's claim for times without an API server.
    pub(crate) fn claim_note(&self, uid: &str, volume: &str) -> PathBuf {
        self.pod(uid).join("plugins").join("kubernetes.io~persistent-volume-claim").join(volume).join("volume.json")
    }

    /// The pods that have a directory.
    pub fn pod_uids(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.pods()).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// The file that says that a volume was set up completely.
    pub(crate) fn ready_marker(&self, uid: &str, plugin: &str, volume: &str) -> PathBuf {
        self.pod(uid).join("plugins").join(escape(plugin)).join(volume).join("ready")
    }

    /// Where a container's sub-path of a volume is bound.
    pub(crate) fn sub_path(&self, uid: &str, volume: &str, container: &str, index: usize) -> PathBuf {
        self.pod(uid).join("volume-subpaths").join(volume).join(container).join(index.to_string())
    }
}

/// A plug-in's name as a directory.
fn escape(plugin: &str) -> String {
    plugin.replace('/', "~")
}

/// Says that a volume was set up completely.
pub(crate) fn write_marker(marker: &Path) -> std::io::Result<()> {
    if let Some(parent) = marker.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(marker, [])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_upstreams() {
        let dirs = VolumeDirs::new("/var/lib/kubelet");
        assert_eq!(
            dirs.volume("u", "kubernetes.io/configmap", "v"),
            Path::new("/var/lib/kubelet/pods/u/volumes/kubernetes.io~configmap/v")
        );
        assert_eq!(dirs.sub_path("u", "v", "c", 1), Path::new("/var/lib/kubelet/pods/u/volume-subpaths/v/c/1"));
    }
}
