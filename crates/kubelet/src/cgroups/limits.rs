//! The limits of a pod's cgroup: what they are now, and how they are changed while the pod runs.
//!
//! Invariant: a limit is raised before those of the containers below it and lowered after them, because the kernel refuses
//! a quota that exceeds the parent's.

use std::io;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use kedge_cri::v1;

use super::{Cgroups, cpu_weight, read_number, write};
use crate::config::CgroupDriver;

/// Version 1 shows about this much where there is no memory limit.
const NO_MEMORY_LIMIT: i64 = 1 << 62;

/// What a pod's cgroup allows; `None` without a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PodLimits {
    /// Microseconds for each period of 100 ms.
    pub(crate) cpu_quota: Option<i64>,
    pub(crate) memory: Option<i64>,
}

impl PodLimits {
    /// What the limits are to be. Upstream leaves a limit where it is when it is no longer asked for.
    pub(crate) fn wanted(self, limits: &v1::LinuxContainerResources) -> Self {
        Self {
            cpu_quota: Some(limits.cpu_quota).filter(|quota| *quota > 0).or(self.cpu_quota),
            memory: Some(limits.memory_limit_in_bytes).filter(|limit| *limit > 0).or(self.memory),
        }
    }
}

/// Whether `wanted` allows more than `current`.
pub(crate) fn raises(current: Option<i64>, wanted: Option<i64>) -> bool {
    match (current, wanted) {
        (Some(current), Some(wanted)) => wanted > current,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

impl Cgroups {
    /// The limits that a pod's cgroup has now; `None` where it has no cgroup that this node writes.
    pub(crate) fn pod_limits(&self, pod: &Pod) -> Option<PodLimits> {
        if self.driver == CgroupDriver::Systemd {
            return None;
        }
        if self.unified {
            let directory = self.directory(pod, "");
            let cpu = std::fs::read_to_string(directory.join("cpu.max")).ok()?;
            let quota = cpu.split_whitespace().next().and_then(|quota| quota.parse().ok());
            let memory = read_number(&directory.join("memory.max")).and_then(|limit| i64::try_from(limit).ok());
            return Some(PodLimits { cpu_quota: quota, memory });
        }
        let quota = std::fs::read_to_string(self.directory(pod, "cpu").join("cpu.cfs_quota_us")).ok()?;
        let quota = quota.trim().parse().ok().filter(|quota: &i64| *quota > 0);
        let memory = read_number(&self.directory(pod, "memory").join("memory.limit_in_bytes"))
            .and_then(|limit| i64::try_from(limit).ok())
            .filter(|limit| *limit < NO_MEMORY_LIMIT);
        Some(PodLimits { cpu_quota: quota, memory })
    }

    /// How much memory a pod, or one of its containers, uses.
    pub(crate) fn memory_in_use(&self, pod: &Pod, container_id: Option<&str>) -> Option<u64> {
        let parent = self.parent_of(pod);
        let path = container_id.map_or_else(|| parent.clone(), |id| format!("{parent}/{id}"));
        self.memory_usage(&path)
    }

    /// Changes how much CPU time the pod gets beside others.
    pub(crate) fn write_cpu_shares(&self, pod: &Pod, shares: i64) -> io::Result<()> {
        match self.unified {
            true => write(&self.directory(pod, ""), "cpu.weight", cpu_weight(shares)),
            false => write(&self.directory(pod, "cpu"), "cpu.shares", shares),
        }
    }

    /// Changes how much CPU time the pod gets at most.
    pub(crate) fn write_cpu_quota(&self, pod: &Pod, quota: i64, period: i64) -> io::Result<()> {
        if self.unified {
            return std::fs::write(self.directory(pod, "").join("cpu.max"), format!("{quota} {period}"));
        }
        let directory = self.directory(pod, "cpu");
        write(&directory, "cpu.cfs_period_us", period)?;
        write(&directory, "cpu.cfs_quota_us", quota)
    }

    /// Changes how much memory the pod gets at most.
    pub(crate) fn write_memory(&self, pod: &Pod, limit: i64) -> io::Result<()> {
        match self.unified {
            true => write(&self.directory(pod, ""), "memory.max", limit),
            false => write(&self.directory(pod, "memory"), "memory.limit_in_bytes", limit),
        }
    }

    fn directory(&self, pod: &Pod, controller: &str) -> PathBuf {
        self.root.join(controller).join(self.parent_of(pod).trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroups(unified: bool, root: PathBuf) -> Cgroups {
        Cgroups::at(root, unified)
    }

    fn pod() -> Pod {
        let mut pod = Pod::default();
        pod.metadata.uid = Some("u".to_owned());
        pod
    }

    #[test]
    fn limits_are_written_and_read_in_both_versions() {
        for (unified, controllers) in [(false, &["cpu", "memory"][..]), (true, &[""])] {
            let root = tempfile::tempdir().unwrap();
            for controller in controllers {
                std::fs::create_dir_all(root.path().join(controller).join("kubepods/besteffort/podu")).unwrap();
            }
            let cgroups = cgroups(unified, root.path().to_owned());
            assert_eq!(cgroups.pod_limits(&pod()), None);
            cgroups.write_cpu_quota(&pod(), 20_000, 100_000).unwrap();
            cgroups.write_cpu_shares(&pod(), 102).unwrap();
            cgroups.write_memory(&pod(), 1 << 20).unwrap();
            let expected = PodLimits { cpu_quota: Some(20_000), memory: Some(1 << 20) };
            assert_eq!(cgroups.pod_limits(&pod()), Some(expected), "unified: {unified}");
        }
    }

    #[test]
    fn an_absent_limit_is_the_highest_and_stays() {
        let current = PodLimits { cpu_quota: None, memory: Some(10) };
        let asked = v1::LinuxContainerResources { cpu_quota: 5, ..Default::default() };
        assert_eq!(current.wanted(&asked), PodLimits { cpu_quota: Some(5), memory: Some(10) });
        for (current, wanted, expected) in
            [(Some(1), Some(2), true), (Some(2), Some(1), false), (None, Some(1), false), (Some(1), None, true)]
        {
            assert_eq!(raises(current, wanted), expected, "{current:?} -> {wanted:?}");
        }
    }
}
