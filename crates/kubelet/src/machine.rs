//! Facts about this machine: processors, memory, disks, identity, operating system.
//!
//! Read once at start, except what changes by itself. Invariant: a fact that cannot be read is empty or zero, never made up.

use std::path::Path;

use crate::cgroups::NodeLimits;
use crate::config::Config;
use crate::eviction::Signal;

/// What the Node object says about the machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub(crate) cpu_millis: i64,
    pub(crate) memory_bytes: u64,
    pub(crate) disk_bytes: u64,
    /// Sizes such as `hugepages-2Mi`, with their amounts in bytes.
    pub(crate) hugepages: Vec<(String, u64)>,
    pub(crate) swap_bytes: u64,
    pub(crate) machine_id: String,
    pub(crate) system_uuid: String,
    pub(crate) boot_id: String,
    pub(crate) kernel_version: String,
    pub(crate) os_image: String,
}

/// Use of a file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) capacity: u64,
    pub(crate) available: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

impl Machine {
    /// Reads the facts.
    pub(crate) fn read(config: &Config) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            cpu_millis: i64::try_from(cpus).unwrap_or(1) * 1000,
            memory_bytes: meminfo_bytes(&meminfo, "MemTotal"),
            disk_bytes: disk(&config.root_dir).unwrap_or_default().capacity,
            hugepages: hugepages(),
            swap_bytes: meminfo_bytes(&meminfo, "SwapTotal"),
            machine_id: first_line(&["/etc/machine-id", "/var/lib/dbus/machine-id"]),
            system_uuid: first_line(&[
                "/sys/class/dmi/id/product_uuid",
                "/proc/device-tree/vm,uuid",
                "/etc/machine-id",
            ]),
            boot_id: first_line(&["/proc/sys/kernel/random/boot_id"]),
            kernel_version: first_line(&["/proc/sys/kernel/osrelease"]),
            os_image: os_image(&std::fs::read_to_string("/etc/os-release").unwrap_or_default()),
        }
    }

    /// CPU for pods, in thousandths.
    pub(crate) fn allocatable_cpu(&self, config: &Config) -> i64 {
        let reserved = i64::try_from(config.reserved().cpu_millis).unwrap_or(i64::MAX);
        self.cpu_millis.saturating_sub(reserved).max(0)
    }

    /// Memory for pods, in bytes.
    pub(crate) fn allocatable_memory(&self, config: &Config) -> i64 {
        let huge: u64 = self.hugepages.iter().map(|(_, bytes)| bytes).sum();
        let kept = config.reserved().memory.saturating_add(huge);
        left(self.memory_bytes, kept, config, Signal::MemoryAvailable)
    }

    /// Disk for pods, in bytes.
    pub(crate) fn allocatable_storage(&self, config: &Config) -> i64 {
        left(self.disk_bytes, config.reserved().ephemeral_storage, config, Signal::NodefsAvailable)
    }

    /// The limits of all pods together: what is not reserved. What eviction keeps free is not taken off, so that pods are
    /// evicted before the kernel ends them.
    pub(crate) fn limits_of_all_pods(&self, config: &Config) -> NodeLimits {
        let reserved = config.reserved();
        let memory = self.memory_bytes.saturating_sub(reserved.memory);
        let pids = process_ids().filter(|_| reserved.pids > 0).map(|(_, limit)| limit.saturating_sub(reserved.pids));
        NodeLimits {
            cpu_millis: self.allocatable_cpu(config),
            memory: i64::try_from(memory).unwrap_or(i64::MAX),
            pids: pids.and_then(|pids| i64::try_from(pids).ok()),
        }
    }
}

/// What is left of a capacity for pods: not what is kept, nor what a hard eviction threshold keeps free.
fn left(capacity: u64, kept: u64, config: &Config, signal: Signal) -> i64 {
    let capacity = i64::try_from(capacity).unwrap_or(i64::MAX);
    let hard = config.eviction.thresholds.iter().find(|threshold| threshold.signal == signal && threshold.is_hard());
    let free = hard.map_or(0, |threshold| threshold.value.of(capacity));
    let kept = i64::try_from(kept).unwrap_or(i64::MAX);
    capacity.saturating_sub(kept).saturating_sub(free).max(0)
}

/// Go's name of this machine's architecture.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// Memory in use without file pages that were not used lately, in bytes.
pub(crate) fn working_set() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let used = meminfo_bytes(&text, "MemTotal").saturating_sub(meminfo_bytes(&text, "MemFree"));
    Some(used.saturating_sub(meminfo_bytes(&text, "Inactive(file)")))
}

/// Free process ids, and how many there can be.
pub(crate) fn process_ids() -> Option<(u64, u64)> {
    let limit: u64 = first_line(&["/proc/sys/kernel/pid_max"]).parse().ok()?;
    let load = first_line(&["/proc/loadavg"]);
    let used: u64 = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some((limit.saturating_sub(used), limit))
}

/// Use of the file system that holds a path, or its nearest parent that exists.
pub(crate) fn disk(path: &Path) -> Option<Disk> {
    let stat = path.ancestors().find_map(|path| nix::sys::statvfs::statvfs(path).ok())?;
    let block = stat.fragment_size();
    Some(Disk {
        capacity: stat.blocks() * block,
        available: stat.blocks_available() * block,
        inodes: stat.files(),
        inodes_free: stat.files_available(),
    })
}

fn meminfo_bytes(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kibibytes: u64 = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    kibibytes * 1024
}

fn first_line(paths: &[&str]) -> String {
    let texts = paths.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    texts
        .map(|text| text.lines().next().unwrap_or_default().trim_matches(['\0', ' ']).to_owned())
        .find(|line| !line.is_empty())
        .unwrap_or_default()
}

fn os_image(text: &str) -> String {
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map(|name| name.trim_matches('"').to_owned()).unwrap_or_default()
}

fn hugepages() -> Vec<(String, u64)> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<(String, u64)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kibibytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count: u64 = std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
            Some((hugepage_resource(kibibytes), count * kibibytes * 1024))
        })
        .collect();
    sizes.sort();
    sizes
}

fn hugepage_resource(kibibytes: u64) -> String {
    match kibibytes {
        size if size % (1024 * 1024) == 0 => format!("hugepages-{}Gi", size / (1024 * 1024)),
        size if size % 1024 == 0 => format!("hugepages-{}Mi", size / 1024),
        size => format!("hugepages-{size}Ki"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Reserved;

    #[test]
    fn texts_of_the_system() {
        assert_eq!(meminfo_bytes("MemTotal:       1024 kB\nMemFree: 1 kB\n", "MemTotal"), 1024 * 1024);
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        for (kibibytes, name) in [(2048, "hugepages-2Mi"), (1_048_576, "hugepages-1Gi"), (64, "hugepages-64Ki")] {
            assert_eq!(hugepage_resource(kibibytes), name);
        }
    }

    #[test]
    fn what_is_reserved_is_not_allocatable() {
        let machine = Machine { cpu_millis: 2000, memory_bytes: 1000 << 20, disk_bytes: 1000, ..Machine::default() };
        let kube_reserved = Reserved { cpu_millis: 100, memory: 50 << 20, ephemeral_storage: 10, pids: 0 };
        let system_reserved = Reserved { memory: 50 << 20, ..Reserved::default() };
        let config = Config { kube_reserved, system_reserved, ..Config::default() };
        assert_eq!(machine.allocatable_cpu(&config), 1900);
        assert_eq!(machine.allocatable_memory(&config), 800 << 20);
        assert_eq!(machine.allocatable_storage(&config), 890);
        let limits = machine.limits_of_all_pods(&config);
        assert_eq!((limits.cpu_millis, limits.memory, limits.pids), (1900, 900 << 20, None));
        let greedy = Config { kube_reserved: Reserved { memory: 1 << 40, ..Reserved::default() }, ..config };
        assert_eq!(machine.allocatable_memory(&greedy), 0);
    }
}
