//! The cgroups of pods: made and limited before the sandbox, removed after it; and what they use.
//!
//! Invariant: only cgroups below `kubepods` are touched. On a machine where that is not possible, pods run without
//! pod-level limits and the log says so once.

mod limits;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kedge_cri::v1;

pub(crate) use limits::{PodLimits, raises};

use crate::config::CgroupDriver;
use crate::resources;

const ORPHAN_AGE: Duration = Duration::from_secs(60);
const ROOT: &str = "/sys/fs/cgroup";
/// The controllers of version 1 in which pods are limited and measured.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// The cgroup file system of this machine.
pub(crate) struct Cgroups {
    driver: CgroupDriver,
    unified: bool,
    root: PathBuf,
    warned: AtomicBool,
}

/// What a cgroup used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu_nanos: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) working_set_bytes: u64,
    pub(crate) rss_bytes: u64,
    pub(crate) processes: u64,
}

impl Cgroups {
    pub(crate) fn detect(driver: CgroupDriver) -> Self {
        let root = PathBuf::from(ROOT);
        // A hybrid machine has its controllers in version 1.
        let unified = root.join("cgroup.controllers").exists();
        Self { driver, unified, root, warned: AtomicBool::new(false) }
    }

    /// What the runtime is told as the parent of the pod's containers.
    pub(crate) fn parent_of(&self, pod: &Pod) -> String {
        resources::cgroup_parent(pod, self.driver)
    }

    /// Makes the pod's cgroup with its limits.
    pub(crate) fn ensure(&self, pod: &Pod) {
        if self.driver == CgroupDriver::Systemd {
            return;
        }
        let limits = resources::pod_resources(pod);
        if let Err(error) = self.make(&self.parent_of(pod), &limits)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "pods run without pod-level cgroup limits: failed to write below {ROOT}");
        }
    }

    fn make(&self, parent: &str, limits: &v1::LinuxContainerResources) -> io::Result<()> {
        let relative = parent.trim_start_matches('/');
        if self.unified {
            return self.make_unified(relative, limits);
        }
        for controller in CONTROLLERS {
            let directory = self.root.join(controller).join(relative);
            std::fs::create_dir_all(&directory)?;
            match controller {
                "cpu" => {
                    write(&directory, "cpu.shares", limits.cpu_shares)?;
                    if limits.cpu_quota > 0 {
                        write(&directory, "cpu.cfs_period_us", limits.cpu_period)?;
                        write(&directory, "cpu.cfs_quota_us", limits.cpu_quota)?;
                    }
                }
                "memory" if limits.memory_limit_in_bytes > 0 => {
                    write(&directory, "memory.limit_in_bytes", limits.memory_limit_in_bytes)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn make_unified(&self, relative: &str, limits: &v1::LinuxContainerResources) -> io::Result<()> {
        let mut directory = self.root.clone();
        for part in Path::new(relative) {
            // A controller works in a cgroup only where its parent passes it on.
            for controller in ["cpu", "memory", "pids", "cpuset", "io"] {
                let passed = std::fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
                if passed.is_err() {
                    tracing::debug!(controller, directory = %directory.display(), "a cgroup controller is not available");
                }
            }
            directory.push(part);
            std::fs::create_dir_all(&directory)?;
        }
        write(&directory, "cpu.weight", cpu_weight(limits.cpu_shares))?;
        if limits.cpu_quota > 0 {
            std::fs::write(directory.join("cpu.max"), format!("{} {}", limits.cpu_quota, limits.cpu_period))?;
        }
        if limits.memory_limit_in_bytes > 0 {
            write(&directory, "memory.max", limits.memory_limit_in_bytes)?;
        }
        Ok(())
    }

    /// Removes the cgroups of a pod that is gone; those that still have processes stay for the next time.
    pub(crate) fn remove(&self, pod: &Pod) {
        if self.driver == CgroupDriver::Systemd {
            return;
        }
        self.remove_path(self.parent_of(pod).trim_start_matches('/'));
    }

    fn remove_path(&self, relative: &str) {
        for root in self.hierarchies() {
            let directory = root.join(relative);
            if directory.exists()
                && let Err(error) = remove_tree(&directory)
            {
                tracing::debug!(%error, directory = %directory.display(), "a pod's cgroup stays for now");
            }
        }
    }

    fn hierarchies(&self) -> Vec<PathBuf> {
        if self.unified {
            return vec![self.root.clone()];
        }
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }

    /// Removes the cgroups of pods that `keep` does not know.
    pub(crate) fn remove_orphans(&self, keep: &dyn Fn(&str) -> bool) {
        if self.driver == CgroupDriver::Systemd {
            return;
        }
        let base = if self.unified { self.root.clone() } else { self.root.join(CONTROLLERS[0]) };
        for class in ["kubepods", "kubepods/burstable", "kubepods/besteffort"] {
            for entry in std::fs::read_dir(base.join(class)).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.strip_prefix("pod").is_some_and(|uid| !keep(uid)) && is_old(&entry.path()) {
                    self.remove_path(&format!("{class}/{name}"));
                }
            }
        }
    }

    /// What a pod (or with an empty path, the machine) uses; `None` where it has no cgroup.
    pub(crate) fn usage(&self, relative: &str) -> Option<Usage> {
        let relative = relative.trim_start_matches('/');
        if self.unified { self.unified_usage(relative) } else { self.legacy_usage(relative) }
    }

    fn unified_usage(&self, relative: &str) -> Option<Usage> {
        let directory = self.root.join(relative);
        let memory = read_number(&directory.join("memory.current"))?;
        let stat = std::fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
        let cpu = std::fs::read_to_string(directory.join("cpu.stat")).unwrap_or_default();
        Some(Usage {
            cpu_nanos: field(&cpu, "usage_usec") * 1000,
            memory_bytes: memory,
            working_set_bytes: memory.saturating_sub(field(&stat, "inactive_file")),
            rss_bytes: field(&stat, "anon"),
            processes: read_number(&directory.join("pids.current")).unwrap_or(0),
        })
    }

    fn legacy_usage(&self, relative: &str) -> Option<Usage> {
        let at = |controller: &str| self.root.join(controller).join(relative);
        let memory = read_number(&at("memory").join("memory.usage_in_bytes"))?;
        let stat = std::fs::read_to_string(at("memory").join("memory.stat")).unwrap_or_default();
        Some(Usage {
            cpu_nanos: read_number(&at("cpuacct").join("cpuacct.usage")).unwrap_or(0),
            memory_bytes: memory,
            working_set_bytes: memory.saturating_sub(field(&stat, "total_inactive_file")),
            rss_bytes: field(&stat, "total_rss"),
            processes: read_number(&at("pids").join("pids.current")).unwrap_or(0),
        })
    }
}

/// Another kubelet of this machine may have made it just now.
fn is_old(directory: &Path) -> bool {
    let modified = std::fs::metadata(directory).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ORPHAN_AGE))
}

/// Upstream's conversion from version 1 shares to version 2 weights.
fn cpu_weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn write(directory: &Path, file: &str, value: i64) -> io::Result<()> {
    std::fs::write(directory.join(file), value.to_string())
}

fn read_number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Children first: a cgroup can be removed only when it is empty.
fn remove_tree(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_tree(&path)?;
        }
    }
    std::fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        for (shares, weight) in [(2, 1), (1024, 39), (262_144, 10_000)] {
            assert_eq!(cpu_weight(shares), weight);
        }
    }

    #[test]
    fn usage_is_read_from_either_version() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        let put = |path: &str, text: &str| {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::write(root.join(path), text).unwrap();
        };
        put("memory/p/memory.usage_in_bytes", "100\n");
        put("memory/p/memory.stat", "cache 1\ntotal_rss 60\ntotal_inactive_file 30\n");
        put("cpuacct/p/cpuacct.usage", "5\n");
        put("p/memory.current", "10\n");
        put("p/memory.stat", "anon 7\ninactive_file 4\n");
        put("p/cpu.stat", "usage_usec 2\nuser_usec 1\n");
        let of = |unified: bool| Cgroups {
            driver: CgroupDriver::Cgroupfs,
            unified,
            root: root.clone(),
            warned: AtomicBool::new(false),
        };
        let legacy = Usage { cpu_nanos: 5, memory_bytes: 100, working_set_bytes: 70, rss_bytes: 60, processes: 0 };
        assert_eq!(of(false).usage("/p"), Some(legacy));
        let unified = Usage { cpu_nanos: 2000, memory_bytes: 10, working_set_bytes: 6, rss_bytes: 7, processes: 0 };
        assert_eq!(of(true).usage("p"), Some(unified));
        assert_eq!(of(true).usage("none"), None);
    }
}
