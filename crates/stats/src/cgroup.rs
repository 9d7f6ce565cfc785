//! What a control group used so far, in one form for both versions of control groups.
//!
//! Read only. Invariants: a group that is not there is `None`; every path stays below the root.

mod legacy;
mod unified;

use std::path::{Path, PathBuf};

use crate::summary::PsiStats;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Processors and memory.
    Basic,
    /// Everything.
    Full,
}

/// Use of processors; times are nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// All of it.
    pub total: Option<u64>,
    /// In programs.
    pub user: Option<u64>,
    /// In the kernel.
    pub system: Option<u64>,
    /// Periods in which a quota was enforced.
    pub periods: Option<u64>,
    /// Periods in which the quota was used up.
    pub throttled_periods: Option<u64>,
    /// Time spent waiting for the next period.
    pub throttled: Option<u64>,
}

/// Use of memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// All that is charged.
    pub usage: Option<u64>,
    /// Usage without inactive file pages.
    pub working_set: Option<u64>,
    /// Anonymous memory.
    pub rss: Option<u64>,
    /// File pages.
    pub cache: Option<u64>,
    /// Mapped files.
    pub mapped_file: Option<u64>,
    /// Memory of the kernel for this group.
    pub kernel: Option<u64>,
    /// File pages in use.
    pub active_file: Option<u64>,
    /// File pages not used lately.
    pub inactive_file: Option<u64>,
    /// Swap.
    pub swap: Option<u64>,
    /// The highest usage ever.
    pub max_usage: Option<u64>,
    /// How often the limit was met.
    pub failures: Option<u64>,
    /// Page faults.
    pub page_faults: Option<u64>,
    /// Page faults that needed a disk.
    pub major_page_faults: Option<u64>,
    /// How often a process was killed for want of memory.
    pub oom_kills: Option<u64>,
}

/// What a group may use; absent is unlimited or unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of swap (version 1: of memory and swap together, less memory).
    pub swap: Option<u64>,
    /// Version 1's weight.
    pub cpu_shares: Option<u64>,
    /// Microseconds for each period.
    pub cpu_quota: Option<u64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// What one block device did for a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// Pressure stall information; only version 2 has it for groups.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressures {
    /// On processors.
    pub cpu: Option<PsiStats>,
    /// On memory.
    pub memory: Option<PsiStats>,
    /// On input and output.
    pub io: Option<PsiStats>,
}

/// What a control group used so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CgroupUsage {
    /// Processors.
    pub cpu: CpuUsage,
    /// Memory.
    pub memory: MemoryUsage,
    /// What it may use.
    pub limits: Limits,
    /// Block devices; empty in short samples.
    pub io: Vec<DeviceIo>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Pressure.
    pub pressure: Pressures,
}

/// The control groups of a machine.
#[derive(Debug, Clone)]
pub struct CgroupFs {
    root: PathBuf,
    unified: bool,
}

impl CgroupFs {
    /// Those below `root`. A hybrid machine has its controllers in version 1.
    pub fn detect(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let unified = root.join("cgroup.controllers").exists();
        Self { root, unified }
    }

    /// Whether it is version 2.
    pub fn is_unified(&self) -> bool {
        self.unified
    }

    /// Everything that a group used; `/` is the machine.
    pub fn usage(&self, path: &str) -> Option<CgroupUsage> {
        self.read(path, Detail::Full)
    }

    pub(crate) fn read(&self, path: &str, detail: Detail) -> Option<CgroupUsage> {
        let path = relative(path)?;
        if self.unified { unified::read(&self.root.join(path), detail) } else { legacy::read(&self.root, path, detail) }
    }

    /// Some process of the group.
    pub fn any_process(&self, path: &str) -> Option<u32> {
        let path = relative(path)?;
        let base = if self.unified { self.root.clone() } else { self.root.join("pids") };
        let text = file(&base.join(path), "cgroup.procs")?;
        // A group in another process namespace shows 0.
        text.lines().filter_map(|line| line.parse().ok()).find(|pid| *pid > 0)
    }
}

/// A path without its first slash; `None` where it would leave the root.
fn relative(path: &str) -> Option<&str> {
    let path = path.trim_matches('/');
    let inside = !path.split('/').any(|part| part == "..");
    inside.then_some(path)
}

/// Where systemd keeps a slice: `a-b.slice` lies in `a.slice`.
pub fn slice_path(slice: &str) -> String {
    let Some(stem) = slice.strip_suffix(".slice") else { return slice.to_owned() };
    let parts: Vec<&str> = stem.split('-').collect();
    let slices: Vec<String> = (1..=parts.len()).map(|count| format!("{}.slice", parts[..count].join("-"))).collect();
    slices.join("/")
}

fn file(directory: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(directory.join(name)).ok()
}

fn working_set(usage: Option<u64>, inactive_file: Option<u64>) -> Option<u64> {
    usage.map(|usage| usage.saturating_sub(inactive_file.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_in_each_other() {
        for (slice, path) in [
            ("kubepods.slice", "kubepods.slice"),
            (
                "kubepods-burstable-pod1_2.slice",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice",
            ),
            ("/kubepods/pod1", "/kubepods/pod1"),
        ] {
            assert_eq!(slice_path(slice), path);
        }
    }

    #[test]
    fn nothing_above_the_root_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let cgroups = CgroupFs::detect(directory.path().join("inner"));
        std::fs::create_dir_all(directory.path().join("memory")).unwrap();
        std::fs::write(directory.path().join("memory/memory.usage_in_bytes"), "1").unwrap();
        assert_eq!(cgroups.usage("../"), None);
        assert_eq!(cgroups.usage("a/../../memory"), None);
    }
}
