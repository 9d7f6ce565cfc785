//! What a pod uses, in the form that ranking, limits and messages read.
//!
//! Pure data. Invariant: what could not be read is absent, never zero.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::threshold::Resource;
use crate::resources;

/// Use of a part of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DiskUsage {
    pub(crate) bytes: i64,
    pub(crate) inodes: i64,
}

impl DiskUsage {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }
}

/// What one container uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContainerUsage {
    pub(crate) name: String,
    /// The working set, in bytes.
    pub(crate) memory: Option<i64>,
    /// The writable layer.
    pub(crate) rootfs: Option<DiskUsage>,
    pub(crate) logs: Option<DiskUsage>,
}

/// What one pod uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodUsage {
    /// The working set, in bytes.
    pub(crate) memory: Option<i64>,
    pub(crate) processes: Option<i64>,
    pub(crate) containers: Vec<ContainerUsage>,
    /// `emptyDir` volumes by name, those in memory too.
    pub(crate) empty_dirs: BTreeMap<String, DiskUsage>,
    /// Volumes that are on the node's own disk.
    pub(crate) local_volumes: DiskUsage,
}

/// A pod that could go.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) pod: Arc<Pod>,
    pub(crate) usage: Option<PodUsage>,
}

/// Which parts of a pod's disk usage lie on the file system that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) rootfs: bool,
    pub(crate) logs: bool,
    pub(crate) volumes: bool,
}

impl PodUsage {
    /// Disk usage of some parts.
    pub(crate) fn disk(&self, parts: Parts) -> DiskUsage {
        let mut sum = if parts.volumes { self.local_volumes } else { DiskUsage::default() };
        for container in &self.containers {
            let rootfs = container.rootfs.filter(|_| parts.rootfs);
            let logs = container.logs.filter(|_| parts.logs);
            sum = sum.plus(rootfs.unwrap_or_default()).plus(logs.unwrap_or_default());
        }
        sum
    }

    /// All local storage of the pod.
    pub(crate) fn ephemeral_storage(&self) -> i64 {
        self.disk(Parts { rootfs: true, logs: true, volumes: true }).bytes
    }
}

/// How much of something a pod asked for; of inodes and process ids it can ask for nothing.
pub(crate) fn requested(pod: &Pod, resource: Resource) -> i64 {
    match resource {
        Resource::Memory | Resource::EphemeralStorage => resources::pod_request(pod, resource.name()),
        Resource::Inodes | Resource::Pids => 0,
    }
}
