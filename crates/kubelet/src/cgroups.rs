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
use parking_lot::Mutex;

pub(crate) use limits::{PodLimits, raises};

use crate::config::CgroupDriver;
use crate::resources::{self, QosClass};

const ORPHAN_AGE: Duration = Duration::from_secs(60);
const ROOT: &str = "/sys/fs/cgroup";
const ALL_PODS: &str = "/kubepods";
/// The controllers of version 1 in which pods are limited.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// The cgroup file system of this machine.
pub(crate) struct Cgroups {
    driver: CgroupDriver,
    unified: bool,
    root: PathBuf,
    /// At most so many processes in a pod.
    pod_pids_limit: Option<i64>,
    warned: AtomicBool,
    /// The CPU shares of the burstable pods together, as last written.
    burstable_shares: Mutex<Option<i64>>,
}

/// The limits of the cgroup of all pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeLimits {
    pub(crate) cpu_millis: i64,
    pub(crate) memory: i64,
    pub(crate) pids: Option<i64>,
}

impl Cgroups {
    pub(crate) fn detect(driver: CgroupDriver, pod_pids_limit: i64) -> Self {
        let root = PathBuf::from(ROOT);
        // A hybrid machine has its controllers in version 1.
        let unified = root.join("cgroup.controllers").exists();
        Self {
            driver,
            unified,
            root,
            pod_pids_limit: Some(pod_pids_limit).filter(|limit| *limit > 0),
            warned: AtomicBool::new(false),
            burstable_shares: Mutex::new(None),
        }
    }

    /// Where the kernel can, a container that runs out of memory ends as a whole, not by one of its processes.
    pub(crate) fn end_together(&self, mut resources: v1::LinuxContainerResources) -> v1::LinuxContainerResources {
        if self.unified {
            resources.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
        }
        resources
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
        let parent = self.parent_of(pod);
        let made = self.make(&parent, &limits);
        if let Err(error) =
            made.and_then(|()| self.pod_pids_limit.map_or(Ok(()), |pids| self.write_pids(&parent, pids)))
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "pods run without pod-level cgroup limits: failed to write below {ROOT}");
        }
    }

    /// Limits the cgroup of all pods to what is not reserved, so that pods together cannot starve the system.
    pub(crate) fn limit_all_pods(&self, limits: &NodeLimits) {
        if self.driver == CgroupDriver::Systemd {
            return;
        }
        let resources = v1::LinuxContainerResources {
            cpu_shares: resources::cpu_shares(limits.cpu_millis),
            memory_limit_in_bytes: limits.memory,
            ..Default::default()
        };
        let made = self.make(ALL_PODS, &resources);
        let limited = limits.pids.map_or(Ok(()), |pids| self.write_pids(ALL_PODS, pids));
        if let Err(error) = made.and(limited) {
            tracing::warn!(%error, "all pods together are not limited: failed to write below {ROOT}");
        }
    }

    /// Gives the burstable pods together the CPU shares that they asked for, and the others what is left.
    pub(crate) fn share_between_classes<'a>(&self, pods: impl Iterator<Item = &'a Pod>) {
        let burstable = pods.filter(|pod| resources::qos_class(pod) == QosClass::Burstable);
        let shares: i64 = burstable.map(|pod| resources::pod_resources(pod).cpu_shares).sum();
        let shares = shares.max(2);
        let mut known = self.burstable_shares.lock();
        if self.driver == CgroupDriver::Systemd || *known == Some(shares) {
            return;
        }
        let write = |class: &str, cpu_shares: i64| {
            self.make(&format!("{ALL_PODS}/{class}"), &v1::LinuxContainerResources { cpu_shares, ..Default::default() })
        };
        match write("besteffort", 2).and_then(|()| write("burstable", shares)) {
            Ok(()) => *known = Some(shares),
            Err(error) => tracing::debug!(%error, "the classes of pods have no CPU shares of their own"),
        }
    }

    fn write_pids(&self, parent: &str, limit: i64) -> io::Result<()> {
        let relative = parent.trim_start_matches('/');
        let directory = if self.unified { self.root.join(relative) } else { self.root.join("pids").join(relative) };
        write(&directory, "pids.max", limit)
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
impl Cgroups {
    /// The cgroup file system at another place.
    fn at(root: PathBuf, unified: bool) -> Self {
        Self {
            driver: CgroupDriver::Cgroupfs,
            unified,
            root,
            pod_pids_limit: None,
            warned: AtomicBool::new(false),
            burstable_shares: Mutex::new(None),
        }
    }
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
    fn limits_are_written_in_either_version() {
        for (unified, files) in [
            (
                false,
                [
                    ("memory/kubepods/memory.limit_in_bytes", "1000"),
                    ("cpu/kubepods/cpu.shares", "2048"),
                    ("pids/kubepods/pids.max", "50"),
                    ("cpu/kubepods/besteffort/cpu.shares", "2"),
                    ("cpu/kubepods/burstable/cpu.shares", "512"),
                    ("pids/kubepods/burstable/podu/pids.max", "7"),
                ],
            ),
            (
                true,
                [
                    ("kubepods/memory.max", "1000"),
                    ("kubepods/cpu.weight", "79"),
                    ("kubepods/pids.max", "50"),
                    ("kubepods/besteffort/cpu.weight", "1"),
                    ("kubepods/burstable/cpu.weight", "20"),
                    ("kubepods/burstable/podu/pids.max", "7"),
                ],
            ),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let cgroups = Cgroups { pod_pids_limit: Some(7), ..Cgroups::at(directory.path().to_owned(), unified) };
            let pod: Pod = serde_json::from_value(serde_json::json!({ "metadata": { "uid": "u" }, "spec": {
                "containers": [{ "name": "c", "resources": { "requests": { "cpu": "500m" } } }]
            } }))
            .unwrap();
            cgroups.limit_all_pods(&NodeLimits { cpu_millis: 2000, memory: 1000, pids: Some(50) });
            cgroups.share_between_classes([&pod].into_iter());
            cgroups.ensure(&pod);
            for (path, expected) in files {
                assert_eq!(std::fs::read_to_string(directory.path().join(path)).unwrap(), expected, "{path}");
            }
        }
    }
}
