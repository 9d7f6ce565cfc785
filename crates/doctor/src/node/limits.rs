//! What a machine has and how much of it is used: memory, swap, process ids, connections, disks' patience.

use std::path::Path;

use crate::node::reading::Reading;

pub(super) fn read() -> Reading {
    let mut reading = Reading::default();
    memory(&text("/proc/meminfo"), &mut reading);
    swap(&text("/proc/swaps"), &mut reading);
    threads(&mut reading);
    if let (Some(used), Some(most)) =
        (number("/proc/sys/net/netfilter/nf_conntrack_count"), number("/proc/sys/net/netfilter/nf_conntrack_max"))
    {
        reading.measure("sysctl net.netfilter.nf_conntrack_count", "conntrack_entries", "machine", used, Some(most));
    }
    pressure(&text("/proc/pressure/io"), &mut reading);
    flushes(&text("/proc/diskstats"), &mut reading);
    cgroups(&mut reading);
    reading
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &str) -> Option<f64> {
    text(path).trim().parse().ok()
}

fn memory(meminfo: &str, reading: &mut Reading) {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok().map(|kibibytes| kibibytes * 1024.0)
    };
    match (bytes("MemAvailable"), bytes("MemTotal")) {
        (Some(available), Some(total)) => {
            reading.measure("free", "memory_available_bytes", "machine", available, Some(total))
        }
        _ => reading.miss("memory", "/proc/meminfo does not say"),
    }
}

/// Each part of the disk that is swapped to; none is a measure of its own.
fn swap(swaps: &str, reading: &mut Reading) {
    let parts: Vec<(&str, f64)> = swaps
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?, fields.nth(1)?.parse::<f64>().ok()? * 1024.0))
        })
        .collect();
    if parts.is_empty() && !swaps.is_empty() {
        reading.measure("swapon --show", "swap_bytes", "machine", 0.0, None);
    }
    for (part, bytes) in parts {
        reading.measure("swapon --show", "swap_bytes", part, bytes, None);
    }
}

fn threads(reading: &mut Reading) {
    let loads = text("/proc/loadavg");
    let count = loads.split_whitespace().nth(3).and_then(|field| field.split('/').nth(1)?.parse().ok());
    let bounds = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].into_iter().filter_map(number);
    if let Some(count) = count {
        reading.measure("cat /proc/loadavg", "threads", "machine", count, bounds.reduce(f64::min));
    }
}

/// The part of the last ten seconds in which every task that could run waited for a disk, in hundredths.
fn pressure(pressure: &str, reading: &mut Reading) {
    let full =
        pressure.lines().find_map(|line| line.strip_prefix("full ")?.split_whitespace().next()?.strip_prefix("avg10="));
    if let Some(percent) = full.and_then(|percent| percent.parse().ok()) {
        reading.measure("cat /proc/pressure/io", "io_pressure_percent", "machine", percent, Some(100.0));
    }
}

/// How long a flush of each disk took, on average since the start: what every sync of etcd waits for.
fn flushes(stats: &str, reading: &mut Reading) {
    for line in stats.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
        let (Some(name), Some(count), Some(millis)) = (fields.get(2), number(18), number(19)) else { continue };
        if count >= 100.0 {
            reading.measure("cat /proc/diskstats", "flush_seconds", name, millis / count / 1000.0, None);
        }
    }
}

fn cgroups(reading: &mut Reading) {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers");
    if unified.exists() {
        reading.measure("stat -f /sys/fs/cgroup", "cgroup_version", "/sys/fs/cgroup", 2.0, None);
        let controllers = text("/sys/fs/cgroup/cgroup.controllers");
        controller(controllers.split_whitespace().any(|name| name == "memory"), reading);
    } else if Path::new("/sys/fs/cgroup").is_dir() {
        reading.measure("stat -f /sys/fs/cgroup", "cgroup_version", "/sys/fs/cgroup", 1.0, None);
        let known = text("/proc/cgroups");
        let memory = known.lines().find(|line| line.split_whitespace().next() == Some("memory"));
        if let Some(line) = memory {
            controller(line.split_whitespace().nth(3) == Some("1"), reading);
        }
    }
}

fn controller(is_there: bool, reading: &mut Reading) {
    reading.measure("cat /proc/cgroups", "cgroup_controller", "memory", f64::from(u8::from(is_there)), None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_diagnosis::Fact;

    fn measures(reading: &Reading) -> Vec<(String, String, f64)> {
        let measure = |(_, fact): (_, &Fact)| match fact {
            Fact::Measure(measure) => Some((measure.name.clone(), measure.of.clone(), measure.value)),
            _ => None,
        };
        reading.facts().filter_map(measure).collect()
    }

    #[test]
    fn files_of_proc_are_read() {
        let mut reading = Reading::default();
        memory("MemTotal:       2048 kB\nMemFree:         12 kB\nMemAvailable:   1024 kB\n", &mut reading);
        swap("Filename Type Size Used Priority\n/dev/zram0 partition 1000 0 5\n", &mut reading);
        swap("Filename Type Size Used Priority\n", &mut reading);
        pressure("some avg10=1.00 avg60=0.00\nfull avg10=12.50 avg60=0.00 avg300=0.00 total=1\n", &mut reading);
        flushes("   8       0 sda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 200 3000\n   7 0 loop0 1 2 3\n", &mut reading);
        let own = |name: &str, of: &str, value: f64| (name.to_owned(), of.to_owned(), value);
        assert_eq!(
            measures(&reading),
            [
                own("memory_available_bytes", "machine", 1_048_576.0),
                own("swap_bytes", "/dev/zram0", 1_024_000.0),
                own("swap_bytes", "machine", 0.0),
                own("io_pressure_percent", "machine", 12.5),
                own("flush_seconds", "sda", 0.015),
            ]
        );
    }
}
