//! The machine as a whole: its control group, `/proc`, and the kubelet's file system.
//!
//! Invariant: working set and what is available add up to the machine's memory, as eviction expects.

use std::path::Path;

use jiff::Timestamp;

use crate::cgroup::{CgroupFs, CgroupUsage, Detail, Pressures};
use crate::summary::{InterfaceStats, RlimitStats, SwapStats};
use crate::text::{interfaces, meminfo, pressure};

/// Hundredths of a second, in nanoseconds.
const NANOS_PER_TICK: u64 = 10_000_000;

/// The machine's memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HostMemory {
    pub(crate) capacity: Option<u64>,
    pub(crate) swap: Option<u64>,
}

/// The usage of the machine. Where the root group has no figures, `/proc` has.
pub(crate) fn usage(cgroups: &CgroupFs, proc: &Path, detail: Detail) -> (CgroupUsage, HostMemory) {
    let text = read(proc, "meminfo");
    let mut usage = cgroups.read("/", detail).unwrap_or_default();
    let memory = &mut usage.memory;
    if memory.usage.is_none() {
        let used = meminfo(&text, "MemTotal").zip(meminfo(&text, "MemFree"));
        memory.usage = used.map(|(total, free)| total.saturating_sub(free));
        memory.inactive_file = memory.inactive_file.or_else(|| meminfo(&text, "Inactive(file)"));
        memory.working_set = memory.usage.map(|usage| usage.saturating_sub(memory.inactive_file.unwrap_or(0)));
        memory.rss = memory.rss.or_else(|| meminfo(&text, "AnonPages"));
    }
    if usage.cpu.total.is_none() {
        usage.cpu.total = busy_nanos(&read(proc, "stat"));
    }
    let swap = meminfo(&text, "SwapTotal").filter(|total| *total > 0);
    usage.memory.swap = swap.zip(meminfo(&text, "SwapFree")).map(|(total, free)| total.saturating_sub(free));
    if detail == Detail::Full {
        let of = |name: &str| pressure(&read(proc, &format!("pressure/{name}")));
        usage.pressure = Pressures { cpu: of("cpu"), memory: of("memory"), io: of("io") };
    }
    (usage, HostMemory { capacity: meminfo(&text, "MemTotal"), swap })
}

/// Swap of the machine.
pub(crate) fn swap(usage: &CgroupUsage, memory: HostMemory, time: Timestamp) -> Option<SwapStats> {
    let used = usage.memory.swap.unwrap_or(0);
    let available = memory.swap.unwrap_or(0).saturating_sub(used);
    // Without any swap there is none used and none left, as upstream says.
    memory.capacity.map(|_| SwapStats { time, swap_available_bytes: Some(available), swap_usage_bytes: Some(used) })
}

/// All but idle time, from the first line of `/proc/stat`.
fn busy_nanos(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let idle = ticks.get(3)? + ticks.get(4).copied().unwrap_or(0);
    let total: u64 = ticks.iter().take(8).sum();
    Some(total.saturating_sub(idle) * NANOS_PER_TICK)
}

/// When the machine was started.
pub(crate) fn boot_time(proc: &Path) -> Option<Timestamp> {
    let stat = read(proc, "stat");
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
    Timestamp::from_second(seconds).ok()
}

/// Process ids.
pub(crate) fn rlimit(proc: &Path, time: Timestamp) -> RlimitStats {
    let load = read(proc, "loadavg");
    let max = |name: &str| read(proc, name).trim().parse::<i64>().ok();
    let running = load.split_whitespace().nth(3).and_then(|word| word.split_once('/')?.1.parse().ok());
    // Whichever ends first.
    let (ids, threads) = (max("sys/kernel/pid_max"), max("sys/kernel/threads-max"));
    RlimitStats { time, max_pid: ids.into_iter().chain(threads).min(), running }
}

/// The interfaces of this process's network, or of another process's.
pub(crate) fn network(proc: &Path, process: Option<u32>) -> Vec<InterfaceStats> {
    let of = process.map_or_else(|| "self".to_owned(), |process| process.to_string());
    interfaces(&read(proc, &format!("{of}/net/dev")))
}

fn read(proc: &Path, name: &str) -> String {
    std::fs::read_to_string(proc.join(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_figures_in_its_root_group() {
        let directory = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("cgroup/cgroup.controllers", "cpu memory\n");
        put("cgroup/cpu.stat", "usage_usec 3\n");
        put(
            "proc/meminfo",
            "MemTotal: 100 kB\nMemFree: 40 kB\nInactive(file): 10 kB\nSwapTotal: 8 kB\nSwapFree: 6 kB\n",
        );
        put("proc/stat", "cpu  100 0 50 1000 20 5 5 0 0 0\nbtime 77\n");
        put("proc/loadavg", "0 0 0 1/345 99\n");
        put("proc/sys/kernel/pid_max", "4194304\n");
        put("proc/sys/kernel/threads-max", "5000\n");
        put("proc/pressure/io", "some avg10=0.00 avg60=0.00 avg300=0.00 total=4\n");
        let cgroups = CgroupFs::detect(directory.path().join("cgroup"));
        let proc = directory.path().join("proc");
        let (used, memory) = usage(&cgroups, &proc, Detail::Full);
        assert_eq!(used.cpu.total, Some(3000));
        assert_eq!((used.memory.usage, used.memory.working_set), (Some(60 << 10), Some(50 << 10)));
        assert_eq!(memory, HostMemory { capacity: Some(100 << 10), swap: Some(8 << 10) });
        assert_eq!(used.pressure.io.unwrap().some.total, 4000);
        let swap = swap(&used, memory, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((swap.swap_usage_bytes, swap.swap_available_bytes), (Some(2 << 10), Some(6 << 10)));
        let rlimit = rlimit(&proc, Timestamp::UNIX_EPOCH);
        assert_eq!((rlimit.max_pid, rlimit.running), (Some(5000), Some(345)));
        assert_eq!(boot_time(&proc).unwrap().as_second(), 77);
    }

    #[test]
    fn busy_time_leaves_out_idle_and_waiting() {
        assert_eq!(busy_nanos("cpu  100 0 50 1000 20 5 5 0 0 0\ncpu0 1"), Some(160 * NANOS_PER_TICK));
        assert_eq!(busy_nanos(""), None);
    }
}
