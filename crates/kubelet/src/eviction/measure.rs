//! Reads what the node has left and what pods use.
//!
//! Not the collector of the summary: what is asked here is wanted fresh, and mostly about one pod. It decides nothing.
//! Invariant: a pod's disk is measured only when asked for.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kedge_cri::v1;
use kedge_stats::{CgroupFs, slice_path, tree_usage};

use super::state::{Observation, Observations};
use super::threshold::Signal;
use super::usage::{ContainerUsage, DiskUsage, PodUsage};
use crate::agent::Agent;
use crate::config::CgroupDriver;
use crate::labels;
use crate::machine;
use crate::spec;

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Writable layers by container id.
pub(crate) type Layers = HashMap<String, DiskUsage>;

/// Reads for the eviction of pods.
pub(crate) struct Meter {
    agent: Arc<Agent>,
    cgroups: CgroupFs,
    /// Where the runtime keeps images, once it said so.
    image_fs: Option<PathBuf>,
}

impl Meter {
    pub(crate) fn new(agent: Arc<Agent>) -> Self {
        Self { agent, cgroups: CgroupFs::detect(CGROUP_ROOT), image_fs: None }
    }

    /// Everything that thresholds can be set on.
    pub(crate) async fn observe(&mut self) -> Observations {
        self.find_image_fs().await;
        let config = &self.agent.config;
        let mut seen = Observations::new();
        let capacity = self.agent.machine.memory_bytes;
        if let Some(used) = self.machine_working_set() {
            insert(&mut seen, Signal::MemoryAvailable, capacity.saturating_sub(used), capacity);
        }
        let all_pods = match config.cgroup_driver {
            CgroupDriver::Cgroupfs => "/kubepods",
            CgroupDriver::Systemd => "/kubepods.slice",
        };
        if let Some(used) = self.cgroups.usage(all_pods).and_then(|usage| usage.memory.working_set) {
            let limit = capacity.saturating_sub(config.reserved().memory);
            insert(&mut seen, Signal::AllocatableMemoryAvailable, limit.saturating_sub(used), limit);
        }
        let image_fs = self.image_fs.as_deref().unwrap_or(&config.root_dir);
        let disks = [
            (config.root_dir.as_path(), Signal::NodefsAvailable, Signal::NodefsInodesFree),
            (image_fs, Signal::ImagefsAvailable, Signal::ImagefsInodesFree),
        ];
        for (path, space, inodes) in disks {
            let Some(disk) = machine::disk(path) else { continue };
            insert(&mut seen, space, disk.available, disk.capacity);
            insert(&mut seen, inodes, disk.inodes_free, disk.inodes);
        }
        if let Some((free, limit)) = machine::process_ids() {
            insert(&mut seen, Signal::PidAvailable, free, limit);
        }
        seen
    }

    /// Whether images and writable layers are on another file system than volumes and logs.
    pub(crate) fn dedicated_image_fs(&self) -> bool {
        let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
        let Some(image_fs) = &self.image_fs else { return false };
        device(image_fs).is_some_and(|image| device(&self.agent.config.root_dir).is_some_and(|node| node != image))
    }

    /// What the whole machine uses, without file pages that were not used lately.
    fn machine_working_set(&self) -> Option<u64> {
        // The root of version 2 has no account of its own.
        let charged = self.cgroups.usage("/").and_then(|usage| usage.memory.working_set);
        charged.or_else(machine::working_set)
    }

    async fn find_image_fs(&mut self) {
        if self.image_fs.is_none() {
            let info = self.agent.runtime.image_fs_info().await.ok();
            let first = info.and_then(|info| info.image_filesystems.into_iter().next());
            self.image_fs = first.and_then(|usage| usage.fs_id).map(|id| id.mountpoint.into());
        }
    }

    /// The writable layers of one pod, or of all.
    pub(crate) async fn layers(&self, uid: Option<&str>) -> Layers {
        let label_selector = uid.map(|uid| (labels::POD_UID.to_owned(), uid.to_owned())).into_iter().collect();
        let filter = v1::ContainerStatsFilter { label_selector, ..Default::default() };
        let stats = match self.agent.runtime.list_container_stats(Some(filter)).await {
            Ok(stats) => stats,
            Err(error) => {
                tracing::warn!(%error, "failed to read what containers use");
                return Layers::new();
            }
        };
        let layer = |stats: v1::ContainerStats| {
            let usage = stats.writable_layer?;
            let bytes = usage.used_bytes.map_or(0, |bytes| clamp(bytes.value));
            let inodes = usage.inodes_used.map_or(0, |inodes| clamp(inodes.value));
            Some((stats.attributes?.id, DiskUsage { bytes, inodes }))
        };
        stats.into_iter().filter_map(layer).collect()
    }

    /// What one pod uses.
    pub(crate) async fn pod(&self, pod: &Arc<Pod>, layers: &Layers) -> PodUsage {
        let (agent, pod) = (self.agent.clone(), pod.clone());
        let state = agent.states.get(spec::uid(&pod));
        let records = state.containers.iter().filter(|record| record.running());
        let containers: Vec<(String, String, Option<DiskUsage>)> =
            records.map(|record| (record.id.clone(), record.name.clone(), layers.get(&record.id).copied())).collect();
        let cgroups = self.cgroups.clone();
        let measured = tokio::task::spawn_blocking(move || measure(&agent, &cgroups, &pod, containers)).await;
        measured.unwrap_or_default()
    }
}

fn measure(
    agent: &Agent,
    cgroups: &CgroupFs,
    pod: &Pod,
    containers: Vec<(String, String, Option<DiskUsage>)>,
) -> PodUsage {
    let uid = spec::uid(pod);
    let group = agent.cgroups.parent_of(pod);
    let own = cgroups.usage(&path_of(&group, None));
    let logs = agent.config.pod_log_dir(spec::namespace(pod), spec::name(pod), uid);
    let mut usage = PodUsage {
        memory: own.as_ref().and_then(|own| own.memory.working_set).map(clamp),
        processes: own.as_ref().and_then(|own| own.processes).map(clamp),
        ..PodUsage::default()
    };
    for (id, name, rootfs) in containers {
        let memory = cgroups.usage(&path_of(&group, Some(&id))).and_then(|usage| usage.memory.working_set);
        let logs = disk_usage(&logs.join(&name));
        usage.containers.push(ContainerUsage { name, memory: memory.map(clamp), rootfs, logs });
    }
    for volume in spec::pod_spec(pod).volumes.iter().flatten() {
        let plugin = match (&volume.empty_dir, &volume.config_map) {
            (Some(_), _) => "kubernetes.io/empty-dir",
            (None, Some(_)) => "kubernetes.io/configmap",
            (None, None) => continue,
        };
        let Some(used) = disk_usage(&agent.config.volume_dir(uid, plugin, &volume.name)) else { continue };
        let in_memory = volume.empty_dir.as_ref().is_some_and(|dir| {
            // Huge pages are memory too.
            dir.medium.as_deref().is_some_and(|medium| !medium.is_empty())
        });
        if !in_memory {
            usage.local_volumes = usage.local_volumes.plus(used);
        }
        if volume.empty_dir.is_some() {
            usage.empty_dirs.insert(volume.name.clone(), used);
        }
    }
    usage
}

fn insert(seen: &mut Observations, signal: Signal, available: u64, capacity: u64) {
    // Some file systems do not count inodes.
    if capacity > 0 {
        seen.insert(signal, Observation { available: clamp(available), capacity: clamp(capacity) });
    }
}

fn clamp(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

fn disk_usage(path: &Path) -> Option<DiskUsage> {
    let usage = tree_usage(path)?;
    Some(DiskUsage { bytes: clamp(usage.bytes), inodes: clamp(usage.inodes) })
}

/// Where the cgroup of a pod, or of one of its containers, is.
fn path_of(group: &str, container: Option<&str>) -> String {
    let is_slice = group.ends_with(".slice");
    let parent = if is_slice { format!("/{}", slice_path(group).trim_start_matches('/')) } else { group.to_owned() };
    match container {
        None => parent,
        Some(id) if is_slice => format!("{parent}/cri-containerd-{id}.scope"),
        Some(id) => format!("{parent}/{id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_upstreams_places() {
        let slice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podu.slice";
        for (group, container, expected) in [
            ("/kubepods/podu", None, "/kubepods/podu".to_owned()),
            ("/kubepods/podu", Some("c"), "/kubepods/podu/c".to_owned()),
            ("kubepods-burstable-podu.slice", None, slice.to_owned()),
            ("kubepods-burstable-podu.slice", Some("c"), format!("{slice}/cri-containerd-c.scope")),
        ] {
            assert_eq!(path_of(group, container), expected);
        }
    }
}
