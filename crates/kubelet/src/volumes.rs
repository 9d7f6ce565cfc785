//! The volumes of pods: made before containers start, kept up to date while they run, taken down after they end.
//!
//! Invariant: paths are upstream's, a volume that was set up once is never lost because the API server is away, and nothing
//! outside a pod's own directory is removed.

mod atomic;
mod claims;
mod host_path;
mod mounts;
mod ownership;
mod payload;
pub(crate) mod tokens;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};
use kedge_meta::Quantity;
use nix::mount::{MntFlags, MsFlags};

use crate::agent::Agent;
use crate::spec;

pub(crate) use mounts::container_mounts;

const READY: &str = "ready";

/// Why a volume is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeError {
    pub(crate) volume: String,
    pub(crate) message: String,
}

impl VolumeError {
    /// The text of the `FailedMount` event.
    pub(crate) fn event(&self) -> String {
        format!("MountVolume.SetUp failed for volume {:?} : {}", self.volume, self.message)
    }
}

/// Where the volumes of a pod are, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MountedVolumes {
    pub(crate) paths: BTreeMap<String, PathBuf>,
    /// Volumes that must not be written to, whatever the mount says.
    pub(crate) read_only: Vec<String>,
    /// Some volume's content may change while the pod runs.
    pub(crate) live: bool,
}

/// Makes every volume of a pod, or brings it up to date; objects may be as old as `max_age`.
pub(crate) async fn set_up(
    agent: &Agent,
    pod: &Pod,
    pod_ips: &[String],
    max_age: Duration,
) -> Result<MountedVolumes, VolumeError> {
    let mut mounted = MountedVolumes::default();
    for volume in spec::pod_spec(pod).volumes.as_deref().unwrap_or_default() {
        let wrap = |message: String| VolumeError { volume: volume.name.clone(), message };
        let path = one(agent, pod, volume, pod_ips, max_age, &mut mounted).await.map_err(wrap)?;
        mounted.paths.insert(volume.name.clone(), path);
    }
    Ok(mounted)
}

async fn one(
    agent: &Agent,
    pod: &Pod,
    volume: &Volume,
    pod_ips: &[String],
    max_age: Duration,
    mounted: &mut MountedVolumes,
) -> Result<PathBuf, String> {
    if let Some(kind) = payload::kind(volume) {
        mounted.live = true;
        return set_up_payload(agent, pod, volume, kind, pod_ips, max_age).await;
    }
    if let Some(source) = &volume.host_path {
        return host_path::ensure(source).map(|()| PathBuf::from(&source.path));
    }
    if let Some(source) = &volume.empty_dir {
        return empty_dir(agent, pod, volume, source);
    }
    let claim = volume.persistent_volume_claim.as_ref().map(|source| (source.claim_name.clone(), source.read_only));
    let ephemeral = volume.ephemeral.as_ref().map(|_| (format!("{}-{}", spec::name(pod), volume.name), None));
    if let Some((claim, read_only)) = claim.or(ephemeral) {
        let path = claims::path(agent, pod, &claim).await?;
        if read_only.unwrap_or(false) {
            mounted.read_only.push(volume.name.clone());
        } else {
            own(pod, &path, false)?;
        }
        return Ok(path);
    }
    // A volume without a source is an empty directory, as the API's default says.
    if *volume == (Volume { name: volume.name.clone(), ..Volume::default() }) {
        return empty_dir(agent, pod, volume, &EmptyDirVolumeSource::default());
    }
    Err("no volume plugin matched".to_owned())
}

async fn set_up_payload(
    agent: &Agent,
    pod: &Pod,
    volume: &Volume,
    kind: payload::Kind,
    pod_ips: &[String],
    max_age: Duration,
) -> Result<PathBuf, String> {
    let directory = agent.config.volume_dir(spec::uid(pod), kind.plugin(), &volume.name);
    let marker = marker(agent, pod, kind.plugin(), &volume.name);
    let ready = marker.exists() && directory.exists();
    let files = match payload::build(agent, pod, volume, pod_ips, max_age).await {
        Ok(files) => files,
        // What is there stays, until the API server answers again.
        Err(error) if ready && error.transient => {
            tracing::debug!(
                pod = spec::format_pod(pod),
                volume = volume.name,
                error = error.message,
                "a volume keeps its content"
            );
            return Ok(directory);
        }
        Err(error) => return Err(error.message),
    };
    let group = fs_group(pod);
    let target = directory.clone();
    let in_memory = kind.in_memory();
    let written = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        std::fs::create_dir_all(&target)?;
        if in_memory && !ready && !is_mount_point(&target) {
            mount_tmpfs(&target, None)?;
        }
        // Upstream's permissions: everybody may enter, the group owns.
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o777))?;
        if atomic::write(&target, &files)?
            && let Some(group) = group
        {
            ownership::set(&target, group, true)?;
        }
        Ok(())
    });
    written.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    if !ready {
        write_marker(&marker).map_err(|error| error.to_string())?;
    }
    Ok(directory)
}

fn empty_dir(agent: &Agent, pod: &Pod, volume: &Volume, source: &EmptyDirVolumeSource) -> Result<PathBuf, String> {
    const PLUGIN: &str = "kubernetes.io/empty-dir";
    let directory = agent.config.volume_dir(spec::uid(pod), PLUGIN, &volume.name);
    let marker = marker(agent, pod, PLUGIN, &volume.name);
    if marker.exists() && directory.exists() {
        return Ok(directory);
    }
    let text = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(&directory).map_err(text)?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            let limit = source.size_limit.as_ref().and_then(|limit| limit.0.parse::<Quantity>().ok());
            if !is_mount_point(&directory) {
                mount_tmpfs(&directory, limit.map(Quantity::units).filter(|bytes| *bytes > 0)).map_err(text)?;
            }
        }
        medium => return Err(format!("unknown storage medium {medium:?}")),
    }
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).map_err(text)?;
    own(pod, &directory, false)?;
    write_marker(&marker).map_err(text)?;
    Ok(directory)
}

fn own(pod: &Pod, path: &Path, read_only: bool) -> Result<(), String> {
    let Some(group) = fs_group(pod) else { return Ok(()) };
    let context = spec::pod_spec(pod).security_context.as_ref();
    let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
    if policy == Some("OnRootMismatch") && ownership::root_matches(path, group) {
        return Ok(());
    }
    ownership::set(path, group, read_only).map_err(|error| format!("applyFSGroup failed: {error}"))
}

pub(crate) fn fs_group(pod: &Pod) -> Option<u32> {
    let group = spec::pod_spec(pod).security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// Upstream keeps a file for each volume that was set up completely.
fn marker(agent: &Agent, pod: &Pod, plugin: &str, volume: &str) -> PathBuf {
    let plugins = agent.config.pod_dir(spec::uid(pod)).join("plugins");
    plugins.join(plugin.replace('/', "~")).join(volume).join(READY)
}

fn write_marker(marker: &Path) -> std::io::Result<()> {
    if let Some(parent) = marker.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(marker, [])
}

fn mount_tmpfs(path: &Path, bytes: Option<i64>) -> std::io::Result<()> {
    let options = bytes.map(|bytes| format!("size={bytes}"));
    nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), options.as_deref())?;
    Ok(())
}

fn is_mount_point(path: &Path) -> bool {
    mount_points().iter().any(|mounted| mounted == path)
}

/// Every mount point of this process, in the order in which they were made.
fn mount_points() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(|path| PathBuf::from(unescape(path))).collect()
}

/// Spaces and their like are octal in mountinfo.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Takes down everything below a pod's directory and removes it. Safe to repeat.
pub(crate) fn tear_down(pod_dir: &Path) -> std::io::Result<()> {
    if !pod_dir.exists() {
        return Ok(());
    }
    unmount_below(pod_dir)?;
    match std::fs::remove_dir_all(pod_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Takes down the volumes of a pod that has ended, but keeps its directory.
pub(crate) fn tear_down_volumes(pod_dir: &Path) -> std::io::Result<()> {
    for part in ["volume-subpaths", "volumes", "plugins"] {
        let directory = pod_dir.join(part);
        if directory.exists() {
            unmount_below(&directory)?;
            std::fs::remove_dir_all(&directory)?;
        }
    }
    Ok(())
}

/// The last mount goes first. What stays mounted must stop the removal, or a bind mount's content would be deleted.
fn unmount_below(directory: &Path) -> std::io::Result<()> {
    for mounted in mount_points().iter().rev().filter(|mounted| mounted.starts_with(directory)) {
        nix::mount::umount2(mounted, MntFlags::MNT_DETACH)?;
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
        tear_down(&pod).unwrap();
        std::fs::create_dir_all(pod.join("volumes/kubernetes.io~empty-dir/v")).unwrap();
        std::fs::write(pod.join("etc-hosts"), "x").unwrap();
        tear_down_volumes(&pod).unwrap();
        assert!(!pod.join("volumes").exists() && pod.join("etc-hosts").exists());
        tear_down(&pod).unwrap();
        assert!(!pod.exists());
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape("/a\\040b\\134"), "/a b\\");
        assert!(mount_points().contains(&PathBuf::from("/proc")) || mount_points().contains(&PathBuf::from("/")));
    }
}
