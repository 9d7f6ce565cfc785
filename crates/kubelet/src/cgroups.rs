//! The cgroups of pods: made and limited before the sandbox, removed after it. What they use is for the crate `stats`.
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
/// The controllers of version 1 in which pods are limited.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// The cgroup file system of this machine.
pub(crate) struct Cgroups {
    driver: CgroupDriver,
    unified: bool,
    root: PathBuf,
    warned: AtomicBool,
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
}

impl Cgroups {
    /// The memory that a group is charged for now; `None` where it is not there.
    fn memory_usage(&self, path: &str) -> Option<u64> {
        let path = path.trim_start_matches('/');
        match self.unified {
            true => read_number(&self.root.join(path).join("memory.current")),
            false => read_number(&self.root.join("memory").join(path).join("memory.usage_in_bytes")),
        }
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
}
