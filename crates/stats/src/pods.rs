//! From what was read to the figures of pods and containers.
//!
//! Invariants: a container without a control group that can be read (virtual machines) has what its runtime says;
//! ephemeral storage is the sum of its parts and never counts one twice.

use std::collections::HashMap;

use jiff::Timestamp;
use kedge_cri::v1;

use crate::cgroup::{CgroupFs, CgroupUsage, Detail, slice_path};
use crate::filesystem::{DiskUsage, FileSystem, file_system};
use crate::host;
use crate::rates::Rates;
use crate::summary::{
    ContainerStats, CpuStats, FsStats, InterfaceStats, IoStats, MemoryStats, NetworkStats, PodReference, PodStats,
    ProcessStats, SwapStats,
};
use crate::target::{ContainerTarget, PodTarget};
use crate::volumes::{self, Trees};

/// The interface that upstream calls the default one.
const DEFAULT_INTERFACE: &str = "eth0";

/// What the runtime says of containers, by id.
pub(crate) type RuntimeStats = HashMap<String, v1::ContainerStats>;

/// The group of a pod, as a path.
pub(crate) fn pod_group(pod: &PodTarget) -> String {
    let path = slice_path(&pod.cgroup);
    if path.starts_with('/') { path } else { format!("/{path}") }
}

/// Where a runtime may have put a container.
fn container_groups(pod_group: &str, id: &str) -> [String; 4] {
    [
        format!("{pod_group}/{id}"),
        format!("{pod_group}/cri-containerd-{id}.scope"),
        format!("{pod_group}/crio-{id}.scope"),
        format!("{pod_group}/crio-{id}"),
    ]
}

/// The group of a container or sandbox, with what it used.
pub(crate) fn container_usage(
    cgroups: &CgroupFs,
    pod_group: &str,
    id: &str,
    detail: Detail,
) -> Option<(String, CgroupUsage)> {
    container_groups(pod_group, id).into_iter().find_map(|path| Some((path.clone(), cgroups.read(&path, detail)?)))
}

/// Processors, with the rate since the last sample.
pub(crate) fn cpu_stats(key: &str, usage: &CgroupUsage, rates: &mut Rates, time: Timestamp) -> CpuStats {
    let usage_nano_cores = usage.cpu.total.and_then(|total| rates.observe(key, time, total));
    CpuStats { time, usage_nano_cores, usage_core_nano_seconds: usage.cpu.total, psi: usage.pressure.cpu }
}

/// Memory; `limit` is what there is.
pub(crate) fn memory_stats(usage: &CgroupUsage, limit: Option<u64>, time: Timestamp) -> MemoryStats {
    let memory = &usage.memory;
    MemoryStats {
        time,
        available_bytes: limit.zip(memory.working_set).map(|(limit, used)| limit.saturating_sub(used)),
        usage_bytes: memory.usage,
        working_set_bytes: memory.working_set,
        rss_bytes: memory.rss,
        page_faults: memory.page_faults,
        major_page_faults: memory.major_page_faults,
        psi: usage.pressure.memory,
    }
}

fn swap_stats(usage: &CgroupUsage, time: Timestamp) -> Option<SwapStats> {
    let used = usage.memory.swap?;
    let available = usage.limits.swap.map(|limit| limit.saturating_sub(used));
    Some(SwapStats { time, swap_available_bytes: available, swap_usage_bytes: Some(used) })
}

pub(crate) fn io_stats(usage: &CgroupUsage, time: Timestamp) -> Option<IoStats> {
    usage.pressure.io.map(|psi| IoStats { time, psi: Some(psi) })
}

pub(crate) fn network_stats(interfaces: Vec<InterfaceStats>, time: Timestamp) -> Option<NetworkStats> {
    let default = interfaces.iter().find(|interface| interface.name == DEFAULT_INTERFACE).cloned();
    (!interfaces.is_empty()).then(|| NetworkStats { time, default: default.unwrap_or_default(), interfaces })
}

/// Reads pods, one after the other.
pub(crate) struct PodReader<'a> {
    pub(crate) cgroups: &'a CgroupFs,
    pub(crate) proc: &'a std::path::Path,
    pub(crate) rates: &'a mut Rates,
    pub(crate) trees: &'a mut Trees,
    /// The kubelet's file system.
    pub(crate) root_fs: Option<FileSystem>,
    /// The runtime's file system of layers.
    pub(crate) layer_fs: Option<FileSystem>,
    pub(crate) runtime: &'a RuntimeStats,
    pub(crate) now: Timestamp,
    pub(crate) detail: Detail,
    /// Some container has no group here.
    pub(crate) without_group: bool,
}

impl PodReader<'_> {
    pub(crate) fn pod(&mut self, target: &PodTarget) -> PodStats {
        let group = pod_group(target);
        let now = self.now;
        let mut stats = PodStats {
            pod_ref: PodReference {
                name: target.name.clone(),
                namespace: target.namespace.clone(),
                uid: target.uid.clone(),
            },
            start_time: target.sandbox.created_at,
            ..PodStats::default()
        };
        if let Some(usage) = self.cgroups.read(&group, self.detail) {
            stats.cpu = Some(cpu_stats(&group, &usage, self.rates, now));
            stats.memory = Some(memory_stats(&usage, usage.limits.memory, now));
            stats.io = io_stats(&usage, now);
            stats.swap = swap_stats(&usage, now);
            stats.process_stats = Some(ProcessStats { process_count: usage.processes });
        }
        stats.containers = target.containers.iter().map(|container| self.container(&group, container)).collect();
        if self.detail == Detail::Full {
            self.files(&group, target, &mut stats);
        }
        stats
    }

    fn container(&mut self, group: &str, target: &ContainerTarget) -> ContainerStats {
        let now = self.now;
        let mut stats =
            ContainerStats { name: target.name.clone(), start_time: target.created_at, ..ContainerStats::default() };
        let from_runtime = self.runtime.get(&target.id);
        let found = container_usage(self.cgroups, group, &target.id, self.detail)
            .or_else(|| Some((format!("{group}/{}", target.id), usage_from_runtime(from_runtime?)?)));
        match found {
            Some((path, usage)) => {
                stats.cpu = Some(cpu_stats(&path, &usage, self.rates, now));
                stats.memory = Some(memory_stats(&usage, usage.limits.memory, now));
                stats.io = io_stats(&usage, now);
                stats.swap = swap_stats(&usage, now);
            }
            None => self.without_group = true,
        }
        if self.detail == Detail::Full {
            let layer = from_runtime.and_then(layer_usage);
            stats.rootfs = layer.map(|usage| match self.layer_fs {
                Some(system) => system.stats(now, Some(usage)),
                None => used_only(usage, now),
            });
            let logs = self.trees.usage(&target.log_dir, now);
            stats.logs = self.root_fs.map(|system| system.stats(now, logs));
        }
        stats
    }

    /// Network, volumes and ephemeral storage.
    fn files(&mut self, group: &str, target: &PodTarget, stats: &mut PodStats) {
        if !target.sandbox.host_network {
            stats.network = network_stats(self.interfaces(group, target), self.now);
        }
        let mut parts: Vec<DiskUsage> = stats.containers.iter().filter_map(|c| used_of(c.rootfs.as_ref()?)).collect();
        for volume in &target.volumes {
            let Some(measured) = volumes::measure(volume, &target.namespace, self.trees, self.now) else { continue };
            if volume.ephemeral {
                parts.extend(used_of(&measured.fs));
            }
            stats.volume_stats.push(measured);
        }
        let files = std::iter::once(&target.log_dir).chain(&target.files);
        parts.extend(files.filter_map(|path| self.trees.usage(path, self.now)));
        let sum = parts.iter().fold(DiskUsage::default(), |sum, part| DiskUsage {
            bytes: sum.bytes + part.bytes,
            inodes: sum.inodes + part.inodes,
        });
        stats.ephemeral_storage = self.root_fs.map(|system| system.stats(self.now, Some(sum)));
    }

    pub(crate) fn interfaces(&self, group: &str, target: &PodTarget) -> Vec<InterfaceStats> {
        sandbox_interfaces(self.cgroups, self.proc, group, target)
    }
}

/// The interfaces that a pod's sandbox has for itself.
pub(crate) fn sandbox_interfaces(
    cgroups: &CgroupFs,
    proc: &std::path::Path,
    group: &str,
    target: &PodTarget,
) -> Vec<InterfaceStats> {
    let mut groups = container_groups(group, &target.sandbox.id).into_iter();
    let process = groups.find_map(|path| cgroups.any_process(&path));
    process.map(|process| host::network(proc, Some(process))).unwrap_or_default()
}

/// The runtime's figures as those of a group.
fn usage_from_runtime(stats: &v1::ContainerStats) -> Option<CgroupUsage> {
    let value = |value: Option<&v1::UInt64Value>| value.map(|value| value.value);
    let mut usage = CgroupUsage::default();
    if let Some(cpu) = &stats.cpu {
        usage.cpu.total = value(cpu.usage_core_nano_seconds.as_ref());
    }
    if let Some(memory) = &stats.memory {
        usage.memory.working_set = value(memory.working_set_bytes.as_ref());
        usage.memory.usage = value(memory.usage_bytes.as_ref()).filter(|bytes| *bytes > 0);
        usage.memory.rss = value(memory.rss_bytes.as_ref());
        usage.memory.page_faults = value(memory.page_faults.as_ref());
        usage.memory.major_page_faults = value(memory.major_page_faults.as_ref());
    }
    (usage.cpu.total.is_some() || usage.memory.working_set.is_some()).then_some(usage)
}

/// The writable layer.
pub(crate) fn layer_usage(stats: &v1::ContainerStats) -> Option<DiskUsage> {
    let layer = stats.writable_layer.as_ref()?;
    let bytes = layer.used_bytes.as_ref()?.value;
    Some(DiskUsage { bytes, inodes: layer.inodes_used.as_ref().map_or(0, |inodes| inodes.value) })
}

/// Where the runtime keeps writable layers.
pub(crate) fn layer_file_system(runtime: &RuntimeStats) -> Option<FileSystem> {
    let layers = runtime.values().filter_map(|stats| stats.writable_layer.as_ref()?.fs_id.as_ref());
    layers.map(|id| id.mountpoint.as_str()).find_map(|path| file_system(std::path::Path::new(path)))
}

fn used_of(fs: &FsStats) -> Option<DiskUsage> {
    Some(DiskUsage { bytes: fs.used_bytes?, inodes: fs.inodes_used.unwrap_or(0) })
}

fn used_only(usage: DiskUsage, time: Timestamp) -> FsStats {
    FsStats { time, used_bytes: Some(usage.bytes), inodes_used: Some(usage.inodes), ..FsStats::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_figures_fill_in() {
        let number = |value| Some(v1::UInt64Value { value });
        let stats = v1::ContainerStats {
            cpu: Some(v1::CpuUsage { usage_core_nano_seconds: number(9), ..Default::default() }),
            memory: Some(v1::MemoryUsage {
                working_set_bytes: number(5),
                usage_bytes: number(0),
                ..Default::default()
            }),
            writable_layer: Some(v1::FilesystemUsage { used_bytes: number(7), ..Default::default() }),
            ..Default::default()
        };
        let usage = usage_from_runtime(&stats).unwrap();
        assert_eq!((usage.cpu.total, usage.memory.working_set, usage.memory.usage), (Some(9), Some(5), None));
        assert_eq!(layer_usage(&stats), Some(DiskUsage { bytes: 7, inodes: 0 }));
        assert_eq!(usage_from_runtime(&v1::ContainerStats::default()), None);
    }

    #[test]
    fn groups_of_pods_are_paths() {
        for (cgroup, path) in
            [("/kubepods/podx", "/kubepods/podx"), ("kubepods-podx.slice", "/kubepods.slice/kubepods-podx.slice")]
        {
            assert_eq!(pod_group(&PodTarget { cgroup: cgroup.to_owned(), ..PodTarget::default() }), path);
        }
    }
}
