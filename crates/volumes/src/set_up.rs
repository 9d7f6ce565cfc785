//! Makes the volumes of a pod, or brings them up to date.
//!
//! What each kind of volume needs is in a file of its own. Invariant: a volume that is there stays as it is where the API
//! server is away.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, ResourceFieldSelector, Volume};
use kedge_csi::PluginHandler;
use kedge_meta::Clock;
use kube::Client;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::atomic::{self, Payload};
use crate::csi::source::CsiSource;
use crate::csi::{self, Csi};
use crate::dirs::{VolumeDirs, write_marker};
use crate::failure::VolumeError;
use crate::mount_table::{is_mount_point, mount_tmpfs};
use crate::objects::Objects;
use crate::tokens::Tokens;
use crate::{empty_dir, host_path, nfs, ownership, payload, persistent, pod};

/// Where the volumes of a pod are, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountedVolumes {
    /// What containers get, by the volume's name.
    pub paths: BTreeMap<String, PathBuf>,
    /// Block devices, by the volume's name.
    pub devices: BTreeMap<String, BlockDevice>,
    /// Volumes that are images, which are mounted with each container.
    pub images: Vec<String>,
    /// Volumes that must not be written to, whatever the mount says.
    pub read_only: Vec<String>,
    /// Some volume's content may change while the pod runs.
    pub live: bool,
    /// What the pod's events are to tell.
    pub news: Vec<VolumeNews>,
}

/// Something that happened to a volume of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeNews {
    /// Something failed.
    pub warning: bool,
    /// The reason of the event.
    pub reason: &'static str,
    /// Its text.
    pub message: String,
}

/// A block device for containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// The device on this node, or a link to it.
    pub path: PathBuf,
    /// Nobody may write.
    pub read_only: bool,
}

/// What one pod can learn about itself and its node.
pub trait PodFields: Send + Sync {
    /// The value of a field of the pod.
    fn field(&self, path: &str) -> Result<String, String>;
    /// An amount of one of its containers.
    fn resource(&self, selector: &ResourceFieldSelector) -> Result<String, String>;
    /// What all pods of the node may use of its memory, in bytes.
    fn node_memory(&self) -> i64;
}

/// What volumes are made with.
pub struct Deps {
    /// The API, as the node.
    pub client: Client,
    /// ConfigMaps and Secrets.
    pub objects: Arc<Objects>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where volumes lie.
    pub dirs: VolumeDirs,
    /// The name of the Node object.
    pub node_name: String,
    /// Who takes in plug-ins that are no storage drivers.
    pub plugin_handlers: Vec<Arc<dyn PluginHandler>>,
}

/// The volumes of all pods of this node.
pub struct Volumes {
    pub(crate) deps: Deps,
    pub(crate) tokens: Tokens,
    pub(crate) csi: Csi,
    /// Pods whose volumes are being or have been taken down: what is late for them must not be made any more.
    pub(crate) ended: Arc<Mutex<HashSet<String>>>,
    /// One round of cleaning up at a time.
    pub(crate) sweeping: tokio::sync::Mutex<()>,
    pub(crate) shutdown: CancellationToken,
}

impl Volumes {
    /// Nothing is mounted before it is asked for, and no driver is known before [`Volumes::run`].
    pub fn new(deps: Deps, shutdown: CancellationToken) -> Self {
        Self {
            tokens: Tokens::new(deps.client.clone()),
            csi: Csi::new(deps.client.clone(), &deps.node_name),
            ended: Arc::default(),
            sweeping: tokio::sync::Mutex::default(),
            shutdown,
            deps,
        }
    }

    /// Where volumes lie.
    pub fn dirs(&self) -> &VolumeDirs {
        &self.deps.dirs
    }

    /// Makes every volume of a pod, or brings it up to date; objects may be as old as `max_age`.
    ///
    /// All are tried, at the same time; the first error in the pod's order is given.
    pub async fn set_up(
        &self,
        pod: &Pod,
        fields: &dyn PodFields,
        max_age: Duration,
    ) -> Result<MountedVolumes, VolumeError> {
        self.ended.lock().remove(pod::uid(pod));
        let each = pod::volumes(pod).iter().map(|volume| async move {
            let mut mounted = MountedVolumes::default();
            let made = self.one(pod, volume, fields, max_age, &mut mounted).await;
            made.map(|()| mounted).map_err(|error| error.of(&volume.name))
        });
        let mut all = MountedVolumes::default();
        for one in futures::future::join_all(each).await {
            let one = one?;
            all.paths.extend(one.paths);
            all.devices.extend(one.devices);
            all.images.extend(one.images);
            all.read_only.extend(one.read_only);
            all.live |= one.live;
            all.news.extend(one.news);
        }
        Ok(all)
    }

    /// Whether a pod came to its end while its volumes were made.
    pub(crate) fn check_alive(&self, pod: &Pod) -> Result<(), String> {
        match self.ended.lock().contains(pod::uid(pod)) {
            true => Err("the pod has ended".to_owned()),
            false => Ok(()),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.deps.clock.now()
    }

    async fn one(
        &self,
        pod: &Pod,
        volume: &Volume,
        fields: &dyn PodFields,
        max_age: Duration,
        mounted: &mut MountedVolumes,
    ) -> Result<(), VolumeError> {
        let name = &volume.name;
        let wrap = |message: String| VolumeError::set_up(name, message);
        if let Some((claim, read_only, own)) = claim_of(pod, volume) {
            return persistent::ensure(self, pod, name, &claim, read_only, own, mounted).await;
        }
        if volume.image.is_some() {
            mounted.images.push(name.clone());
            return Ok(());
        }
        let path = if let Some(kind) = payload::kind(volume) {
            mounted.live = true;
            self.set_up_payload(pod, volume, kind, fields, max_age).await.map_err(wrap)?
        } else if let Some(source) = &volume.host_path {
            host_path::ensure(source).map_err(wrap)?;
            PathBuf::from(&source.path)
        } else if let Some(source) = empty_source(volume) {
            empty_dir::ensure(&self.deps.dirs, pod, name, &source, fields.node_memory()).map_err(wrap)?
        } else if let Some(source) = &volume.csi {
            let (path, live) = csi::mount::ensure(self, pod, &CsiSource::inline(pod, name, source)).await?;
            mounted.live |= live;
            if source.read_only.unwrap_or(false) {
                mounted.read_only.push(name.clone());
            }
            path
        } else if let Some(source) = &volume.nfs {
            if source.read_only.unwrap_or(false) {
                mounted.read_only.push(name.clone());
            }
            nfs::ensure(self, pod, name, source, &[]).await.map_err(wrap)?
        } else {
            return Err(wrap(unsupported(volume)));
        };
        mounted.paths.insert(name.clone(), path);
        Ok(())
    }

    async fn set_up_payload(
        &self,
        pod: &Pod,
        volume: &Volume,
        kind: payload::Kind,
        fields: &dyn PodFields,
        max_age: Duration,
    ) -> Result<PathBuf, String> {
        let directory = self.deps.dirs.volume(pod::uid(pod), kind.plugin(), &volume.name);
        let marker = self.deps.dirs.ready_marker(pod::uid(pod), kind.plugin(), &volume.name);
        let ready = marker.exists() && directory.exists();
        let files = match payload::build(self, pod, volume, fields, max_age).await {
            Ok(files) => files,
            // What is there stays, until the API server answers again.
            Err(error) if ready && error.transient => {
                let (pod, message) = (pod::format(pod), error.message);
                tracing::debug!(pod, volume = volume.name, error = message, "a volume keeps its content");
                return Ok(directory);
            }
            Err(error) => return Err(error.message),
        };
        let group = pod::fs_group(pod);
        let target = directory.clone();
        let in_memory = kind.in_memory() && !ready;
        let written = tokio::task::spawn_blocking(move || write_payload(&target, &files, in_memory, group));
        written.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if !ready {
            write_marker(&marker).map_err(|error| error.to_string())?;
        }
        Ok(directory)
    }
}

/// The claim's name, whether it is only read, and whether it belongs to the pod.
fn claim_of(pod: &Pod, volume: &Volume) -> Option<(String, bool, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((source.claim_name.clone(), source.read_only.unwrap_or(false), false));
    }
    volume.ephemeral.as_ref().map(|_| (format!("{}-{}", pod::name(pod), volume.name), false, true))
}

/// A volume without a source is an empty directory, as the API's default says.
fn empty_source(volume: &Volume) -> Option<EmptyDirVolumeSource> {
    let bare = Volume { name: volume.name.clone(), ..Volume::default() };
    if *volume == bare {
        return Some(EmptyDirVolumeSource::default());
    }
    volume.empty_dir.clone()
}

/// Names the kind of a volume that this node cannot make.
fn unsupported(volume: &Volume) -> String {
    let kinds = [
        ("iscsi", volume.iscsi.is_some()),
        ("fc", volume.fc.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
    ];
    match kinds.iter().find(|(_, there)| *there) {
        Some((kind, _)) => format!("no volume plugin matched: this node has none for {kind} volumes"),
        None => "no volume plugin matched".to_owned(),
    }
}

fn write_payload(target: &Path, files: &Payload, in_memory: bool, group: Option<u32>) -> std::io::Result<()> {
    std::fs::create_dir_all(target)?;
    if in_memory && !is_mount_point(target) {
        mount_tmpfs(target, None)?;
    }
    // Upstream's permissions: everybody may enter, the group owns.
    std::fs::set_permissions(target, std::fs::Permissions::from_mode(0o777))?;
    if atomic::write(target, files)?
        && let Some(group) = group
    {
        ownership::set(target, group, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(source: serde_json::Value) -> Volume {
        serde_json::from_value(source).unwrap()
    }

    #[test]
    fn kinds_that_are_not_there_are_named() {
        let iscsi = json!({ "name": "v", "iscsi": { "iqn": "i", "lun": 0, "targetPortal": "t" } });
        assert_eq!(unsupported(&volume(iscsi)), "no volume plugin matched: this node has none for iscsi volumes");
        assert!(empty_source(&volume(json!({ "name": "v" }))).is_some());
        assert!(empty_source(&volume(json!({ "name": "v", "hostPath": { "path": "/x" } }))).is_none());
    }

    #[test]
    fn claims_and_who_they_belong_to() {
        let mut pod = Pod::default();
        pod.metadata.name = Some("web-0".to_owned());
        let claim = volume(json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c", "readOnly": true } }));
        assert_eq!(claim_of(&pod, &claim), Some(("c".to_owned(), true, false)));
        let own = volume(json!({ "name": "v", "ephemeral": {} }));
        assert_eq!(claim_of(&pod, &own), Some(("web-0-v".to_owned(), false, true)));
    }
}
