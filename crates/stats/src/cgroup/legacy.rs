//! Control groups of version 1: one hierarchy for each controller.

use std::path::Path;

use super::{CgroupUsage, CpuUsage, Detail, Limits, MemoryUsage, Pressures, file, working_set};
use crate::text::{blkio, field, number};

/// `cpuacct.stat` counts hundredths of a second on every architecture that Linux gives to programs.
const NANOS_PER_TICK: u64 = 10_000_000;
/// The kernel writes a number near 2^63, rounded to pages, for no limit.
const UNLIMITED: u64 = 1 << 62;

pub(super) fn read(root: &Path, path: &str, detail: Detail) -> Option<CgroupUsage> {
    let at = |controller: &str| root.join(controller).join(path);
    let (memory, cpuacct) = (at("memory"), at("cpuacct"));
    let total = file(&cpuacct, "cpuacct.usage").and_then(|text| number(&text));
    let usage = file(&memory, "memory.usage_in_bytes").and_then(|text| number(&text));
    if total.is_none() && usage.is_none() {
        return None;
    }
    let full = detail == Detail::Full;
    Some(CgroupUsage {
        cpu: if full { cpu(&cpuacct, &at("cpu"), total) } else { CpuUsage { total, ..CpuUsage::default() } },
        memory: read_memory(&memory, usage, full),
        limits: limits(&memory, &at("cpu"), &at("pids"), full),
        io: if full { devices(&at("blkio")) } else { Vec::new() },
        processes: file(&at("pids"), "pids.current").and_then(|text| number(&text)),
        pressure: Pressures::default(),
    })
}

fn cpu(cpuacct: &Path, cpu: &Path, total: Option<u64>) -> CpuUsage {
    let ticks = file(cpuacct, "cpuacct.stat").unwrap_or_default();
    let quota = file(cpu, "cpu.stat").unwrap_or_default();
    CpuUsage {
        total,
        user: field(&ticks, "user").map(|ticks| ticks * NANOS_PER_TICK),
        system: field(&ticks, "system").map(|ticks| ticks * NANOS_PER_TICK),
        periods: field(&quota, "nr_periods"),
        throttled_periods: field(&quota, "nr_throttled"),
        throttled: field(&quota, "throttled_time"),
    }
}

fn read_memory(memory: &Path, usage: Option<u64>, full: bool) -> MemoryUsage {
    let stat = file(memory, "memory.stat").unwrap_or_default();
    // Figures with `total_` include the groups below.
    let inactive_file = field(&stat, "total_inactive_file");
    let extra = |name: &str| if full { file(memory, name).and_then(|text| number(&text)) } else { None };
    let oom = if full { file(memory, "memory.oom_control").unwrap_or_default() } else { String::new() };
    MemoryUsage {
        usage,
        working_set: working_set(usage, inactive_file),
        rss: field(&stat, "total_rss"),
        cache: field(&stat, "total_cache"),
        mapped_file: field(&stat, "total_mapped_file"),
        kernel: extra("memory.kmem.usage_in_bytes"),
        active_file: field(&stat, "total_active_file"),
        inactive_file,
        swap: field(&stat, "total_swap"),
        max_usage: extra("memory.max_usage_in_bytes"),
        failures: extra("memory.failcnt"),
        page_faults: field(&stat, "total_pgfault"),
        major_page_faults: field(&stat, "total_pgmajfault"),
        oom_kills: field(&oom, "oom_kill"),
    }
}

fn limits(memory: &Path, cpu: &Path, pids: &Path, full: bool) -> Limits {
    let read = |directory: &Path, name: &str| file(directory, name).and_then(|text| number(&text));
    let limited = |amount: Option<u64>| amount.filter(|amount| *amount < UNLIMITED);
    let bytes = limited(read(memory, "memory.limit_in_bytes"));
    let both = limited(read(memory, "memory.memsw.limit_in_bytes"));
    let mut limits = Limits {
        memory: bytes,
        swap: both.zip(bytes).map(|(both, memory)| both.saturating_sub(memory)),
        ..Limits::default()
    };
    if full {
        limits.cpu_shares = read(cpu, "cpu.shares");
        // Without a quota the file says -1, which is no number here.
        limits.cpu_quota = read(cpu, "cpu.cfs_quota_us");
        limits.cpu_period = read(cpu, "cpu.cfs_period_us");
        limits.processes = read(pids, "pids.max");
    }
    limits
}

fn devices(blkio_directory: &Path) -> Vec<super::DeviceIo> {
    let text = |name: &str| {
        let recursive = file(blkio_directory, &format!("blkio.throttle.{name}_recursive"));
        recursive.or_else(|| file(blkio_directory, &format!("blkio.throttle.{name}"))).unwrap_or_default()
    };
    blkio(&text("io_service_bytes"), &text("io_serviced"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_version_1() {
        let directory = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("memory/p/memory.usage_in_bytes", "100\n");
        put("memory/p/memory.limit_in_bytes", "400\n");
        put("memory/p/memory.memsw.limit_in_bytes", "9223372036854771712\n");
        put("memory/p/memory.stat", "cache 1\nrss 2\ntotal_rss 60\ntotal_inactive_file 30\ntotal_pgfault 9\n");
        put("memory/p/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
        put("cpuacct/p/cpuacct.usage", "5\n");
        put("cpuacct/p/cpuacct.stat", "user 3\nsystem 1\n");
        put("cpu/p/cpu.stat", "nr_periods 4\nnr_throttled 1\nthrottled_time 77\n");
        put("cpu/p/cpu.cfs_quota_us", "-1\n");
        put("pids/p/pids.current", "3\n");
        put("pids/p/pids.max", "max\n");
        let usage = read(directory.path(), "p", Detail::Full).unwrap();
        assert_eq!((usage.memory.usage, usage.memory.working_set, usage.memory.rss), (Some(100), Some(70), Some(60)));
        assert_eq!((usage.memory.page_faults, usage.memory.oom_kills), (Some(9), Some(2)));
        assert_eq!((usage.cpu.total, usage.cpu.user, usage.cpu.throttled), (Some(5), Some(30_000_000), Some(77)));
        assert_eq!((usage.limits.memory, usage.limits.swap, usage.limits.cpu_quota), (Some(400), None, None));
        assert_eq!((usage.processes, usage.limits.processes), (Some(3), None));
        let basic = read(directory.path(), "p", Detail::Basic).unwrap();
        assert_eq!((basic.cpu.total, basic.cpu.user, basic.memory.working_set), (Some(5), None, Some(70)));
        assert_eq!(read(directory.path(), "none", Detail::Full), None);
    }
}
