//! Control groups of version 2: one hierarchy.

use std::path::Path;

use super::{CgroupUsage, CpuUsage, Detail, Limits, MemoryUsage, Pressures, file, working_set};
use crate::text::{field, io_stat, number, pressure};

pub(super) fn read(directory: &Path, detail: Detail) -> Option<CgroupUsage> {
    let cpu_stat = file(directory, "cpu.stat");
    // The root has no `memory.current`.
    let usage = file(directory, "memory.current").and_then(|text| number(&text));
    if cpu_stat.is_none() && usage.is_none() {
        return None;
    }
    let full = detail == Detail::Full;
    Some(CgroupUsage {
        cpu: cpu(&cpu_stat.unwrap_or_default()),
        memory: memory(directory, usage, full),
        limits: limits(directory, full),
        io: if full { io_stat(&file(directory, "io.stat").unwrap_or_default()) } else { Vec::new() },
        processes: file(directory, "pids.current").and_then(|text| number(&text)),
        pressure: if full { pressures(directory) } else { Pressures::default() },
    })
}

fn cpu(stat: &str) -> CpuUsage {
    let nanos = |name: &str| field(stat, name).map(|micros| micros * 1000);
    CpuUsage {
        total: nanos("usage_usec"),
        user: nanos("user_usec"),
        system: nanos("system_usec"),
        periods: field(stat, "nr_periods"),
        throttled_periods: field(stat, "nr_throttled"),
        throttled: nanos("throttled_usec"),
    }
}

fn memory(directory: &Path, usage: Option<u64>, full: bool) -> MemoryUsage {
    let stat = file(directory, "memory.stat").unwrap_or_default();
    let inactive_file = field(&stat, "inactive_file");
    let read = |name: &str| file(directory, name).and_then(|text| number(&text));
    let events = if full { file(directory, "memory.events").unwrap_or_default() } else { String::new() };
    MemoryUsage {
        usage,
        working_set: working_set(usage, inactive_file),
        rss: field(&stat, "anon"),
        cache: field(&stat, "file"),
        mapped_file: field(&stat, "file_mapped"),
        kernel: field(&stat, "kernel"),
        active_file: field(&stat, "active_file"),
        inactive_file,
        swap: read("memory.swap.current"),
        max_usage: if full { read("memory.peak") } else { None },
        failures: field(&events, "max"),
        page_faults: field(&stat, "pgfault"),
        major_page_faults: field(&stat, "pgmajfault"),
        oom_kills: field(&events, "oom_kill"),
    }
}

fn limits(directory: &Path, full: bool) -> Limits {
    let read = |name: &str| file(directory, name).and_then(|text| number(&text));
    let mut limits = Limits { memory: read("memory.max"), swap: read("memory.swap.max"), ..Limits::default() };
    if full {
        limits.cpu_shares = read("cpu.weight").map(shares);
        let quota = file(directory, "cpu.max").unwrap_or_default();
        let mut words = quota.split_whitespace();
        limits.cpu_quota = words.next().and_then(number);
        limits.cpu_period = words.next().and_then(number);
        limits.processes = read("pids.max");
    }
    limits
}

/// Upstream's conversion from version 2 weights back to shares.
fn shares(weight: u64) -> u64 {
    2 + (weight.saturating_sub(1)) * 262_142 / 9999
}

fn pressures(directory: &Path) -> Pressures {
    let read = |name: &str| file(directory, name).and_then(|text| pressure(&text));
    Pressures { cpu: read("cpu.pressure"), memory: read("memory.pressure"), io: read("io.pressure") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_version_2() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        put("cpu.stat", "usage_usec 2\nuser_usec 1\nsystem_usec 1\nnr_periods 4\nthrottled_usec 3\n");
        put("memory.current", "10\n");
        put("memory.max", "max\n");
        put("memory.stat", "anon 7\nfile 3\ninactive_file 4\npgfault 5\n");
        put("memory.events", "low 0\nmax 2\noom_kill 1\n");
        put("cpu.max", "50000 100000\n");
        put("cpu.weight", "39\n");
        put("memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n");
        let usage = read(directory.path(), Detail::Full).unwrap();
        assert_eq!((usage.cpu.total, usage.cpu.throttled), (Some(2000), Some(3000)));
        assert_eq!((usage.memory.usage, usage.memory.working_set, usage.memory.rss), (Some(10), Some(6), Some(7)));
        assert_eq!((usage.memory.failures, usage.memory.oom_kills), (Some(2), Some(1)));
        assert_eq!((usage.limits.memory, usage.limits.cpu_quota), (None, Some(50_000)));
        assert_eq!((usage.limits.cpu_shares, usage.limits.cpu_period), (Some(998), Some(100_000)));
        assert_eq!(usage.pressure.memory.unwrap().some.total, 1000);
        assert_eq!(read(&directory.path().join("none"), Detail::Full), None);
    }
}
