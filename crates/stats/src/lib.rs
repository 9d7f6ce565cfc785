//! What this machine, its pods and their containers use: processors, memory, network, file systems, processes, pressure.
//!
//! Read from control groups (versions 1 and 2), `/proc`, `statvfs` and, for what only it knows, the container runtime. It
//! judges nothing: eviction, metrics endpoints and summaries are made of it elsewhere. Invariants: a figure that cannot be
//! read is absent and never zero; nothing is read more often than the cache's age allows.

mod cgroup;
mod collector;
mod filesystem;
mod host;
mod pods;
mod rates;
mod record;
mod summary;
mod target;
mod text;
mod volumes;

pub use cgroup::{CgroupFs, CgroupUsage, CpuUsage, DeviceIo, Limits, MemoryUsage, Pressures, slice_path};
pub use collector::{Collector, Config, Roots};
pub use filesystem::{DiskUsage, FileSystem, file_system, file_system_stats, tree_usage};
pub use record::{CgroupRecord, Role};
pub use summary::{
    ContainerStats, CpuStats, FsStats, InterfaceStats, IoStats, MemoryStats, NetworkStats, NodeStats, PodReference,
    PodStats, ProcessStats, PsiData, PsiStats, PvcReference, RlimitStats, RuntimeStats, Summary, SwapStats,
    VolumeStats,
};
pub use target::{ContainerTarget, PodTarget, SandboxTarget, Targets, VolumeMeasure, VolumeTarget};
