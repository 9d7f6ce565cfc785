//! Makes the volumes of a pod, or brings them up to date.
//!
//! What each kind of volume needs is in a file of its own. Invariant: a volume that is there stays as it is where the API
//! server is away.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, ResourceFieldSelector, Volume};
use kedge_meta::Clock;
use kube::Client;

use crate::atomic::{self, Payload};
use crate::dirs::{VolumeDirs, write_marker};
use crate::mount_table::{is_mount_point, mount_tmpfs};
use crate::objects::Objects;
use crate::tokens::Tokens;
use crate::{claims, empty_dir, host_path, ownership, payload, pod, tear_down};

/// Why a volume is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {message}")]
pub struct VolumeError {
    /// Its name in the pod.
    pub volume: String,
    /// What happened.
    pub message: String,
}

/// Where the volumes of a pod are, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountedVolumes {
    /// What containers get, by the volume's name.
    pub paths: BTreeMap<String, PathBuf>,
    /// Volumes that must not be written to, whatever the mount says.
    pub read_only: Vec<String>,
    /// Some volume's content may change while the pod runs.
    pub live: bool,
}

/// The downward API of one pod.
pub trait PodFields: Send + Sync {
    /// The value of a field of the pod.
    fn field(&self, path: &str) -> Result<String, String>;
    /// An amount of one of its containers.
    fn resource(&self, selector: &ResourceFieldSelector) -> Result<String, String>;
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
}

/// The volumes of all pods of this node.
pub struct Volumes {
    pub(crate) deps: Deps,
    pub(crate) tokens: Tokens,
}

impl Volumes {
    /// Nothing is mounted before it is asked for.
    pub fn new(deps: Deps) -> Self {
        Self { tokens: Tokens::new(deps.client.clone()), deps }
    }

    /// Where volumes lie.
    pub fn dirs(&self) -> &VolumeDirs {
        &self.deps.dirs
    }

    /// Makes every volume of a pod, or brings it up to date; objects may be as old as `max_age`.
    pub async fn set_up(
        &self,
        pod: &Pod,
        fields: &dyn PodFields,
        max_age: Duration,
    ) -> Result<MountedVolumes, VolumeError> {
        let mut mounted = MountedVolumes::default();
        for volume in pod::volumes(pod) {
            let wrap = |message: String| VolumeError { volume: volume.name.clone(), message };
            let path = self.one(pod, volume, fields, max_age, &mut mounted).await.map_err(wrap)?;
            mounted.paths.insert(volume.name.clone(), path);
        }
        Ok(mounted)
    }

    /// Takes down the volumes of a pod that has ended, but keeps its directory.
    pub fn tear_down(&self, pod_uid: &str) -> std::io::Result<()> {
        self.tokens.forget(pod_uid);
        tear_down::remove_volumes(&self.deps.dirs.pod(pod_uid))
    }

    /// Takes down everything below a pod's directory and removes it.
    pub fn remove_pod(&self, pod_uid: &str) -> std::io::Result<()> {
        tear_down::remove(&self.deps.dirs.pod(pod_uid))
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
    ) -> Result<PathBuf, String> {
        if let Some(kind) = payload::kind(volume) {
            mounted.live = true;
            return self.set_up_payload(pod, volume, kind, fields, max_age).await;
        }
        if let Some(source) = &volume.host_path {
            return host_path::ensure(source).map(|()| PathBuf::from(&source.path));
        }
        if let Some(source) = &volume.empty_dir {
            return empty_dir::ensure(&self.deps.dirs, pod, &volume.name, source);
        }
        let claim = volume.persistent_volume_claim.as_ref().map(|source| (source.claim_name.clone(), source.read_only));
        let ephemeral = volume.ephemeral.as_ref().map(|_| (format!("{}-{}", pod::name(pod), volume.name), None));
        if let Some((claim, read_only)) = claim.or(ephemeral) {
            let path = claims::path(self, pod, &claim).await?;
            if read_only.unwrap_or(false) {
                mounted.read_only.push(volume.name.clone());
            } else {
                ownership::apply(pod, &path, false)?;
            }
            return Ok(path);
        }
        // A volume without a source is an empty directory, as the API's default says.
        if *volume == (Volume { name: volume.name.clone(), ..Volume::default() }) {
            return empty_dir::ensure(&self.deps.dirs, pod, &volume.name, &EmptyDirVolumeSource::default());
        }
        Err("no volume plugin matched".to_owned())
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
