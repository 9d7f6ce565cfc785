//! `/metrics/cadvisor`: one series for each control group and figure, under cAdvisor's names and labels.
//!
//! Invariant: as with upstream, series of pods have an empty `container`, and network series are those of sandboxes.

use http::Response;
use jiff::Timestamp;
use kedge_metrics::{Text, amount, seconds};
use kedge_stats::{CgroupRecord, CgroupUsage, DeviceIo, InterfaceStats, PsiStats, Role};

use super::{Body, Server, metrics};
use crate::machine::Machine;

/// A figure of a group, for each value of a further label where it has one.
type Values = fn(&CgroupRecord) -> Vec<(&'static str, f64)>;

/// A counter of interfaces or devices: its name, what it means, and its value.
type Counted<T> = (&'static str, &'static str, fn(&T) -> u64);

struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// The name of the further label.
    label: &'static str,
    values: Values,
}

/// The answer.
pub(super) async fn answer(server: &Server) -> Response<Body> {
    let records = server.collector.records().await;
    let mut text = Text::default();
    machine(&mut text, &server.agent.machine);
    render(&mut text, &records);
    metrics::response(text)
}

fn machine(text: &mut Text, machine: &Machine) {
    text.family("cadvisor_version_info", "gauge", "Always 1, with versions as labels.");
    let labels = [
        ("cadvisorRevision", ""),
        ("cadvisorVersion", ""),
        ("dockerVersion", ""),
        ("kernelVersion", machine.kernel_version.as_str()),
        ("osVersion", machine.os_image.as_str()),
    ];
    text.sample("cadvisor_version_info", &labels, 1.0);
    let ids = [
        ("boot_id", machine.boot_id.as_str()),
        ("machine_id", machine.machine_id.as_str()),
        ("system_uuid", machine.system_uuid.as_str()),
    ];
    let cores = amount(u64::try_from(machine.cpu_millis / 1000).unwrap_or(0));
    for (name, help, value) in [
        ("machine_cpu_cores", "Logical processors.", cores),
        ("machine_memory_bytes", "Memory of the machine.", amount(machine.memory_bytes)),
        ("machine_swap_bytes", "Swap of the machine.", amount(machine.swap_bytes)),
    ] {
        text.family(name, "gauge", help);
        text.sample(name, &ids, value);
    }
}

fn render(text: &mut Text, records: &[CgroupRecord]) {
    for family in FAMILIES {
        text.family(family.name, family.kind, family.help);
        for record in records {
            for (value, figure) in (family.values)(record) {
                sample(text, family.name, record, &[(family.label, value)], figure);
            }
        }
    }
    page_faults(text, records);
    network(text, records);
    devices(text, records);
    let help = "1 where figures could not be read.";
    text.single("container_scrape_error", "gauge", help, f64::from(u8::from(records.is_empty())));
}

/// One line; a further label without a name is left out.
fn sample(text: &mut Text, name: &str, record: &CgroupRecord, further: &[(&str, &str)], value: f64) {
    let mut labels = vec![
        ("container", record.container.as_str()),
        ("id", record.id.as_str()),
        ("image", record.image.as_str()),
        ("name", record.name.as_str()),
        ("namespace", record.namespace.as_str()),
        ("pod", record.pod.as_str()),
    ];
    labels.extend(further.iter().filter(|(name, _)| !name.is_empty()));
    labels.sort_unstable();
    text.sample_at(name, &labels, value, record.time);
}

/// Groups of containers have no groups below them, so that their figures are those of the hierarchy too.
fn page_faults(text: &mut Text, records: &[CgroupRecord]) {
    let name = "container_memory_failures_total";
    text.family(name, "counter", "Page faults.");
    for record in records {
        let scopes: &[&str] = match record.role {
            Role::Container | Role::Sandbox => &["container", "hierarchy"],
            Role::Machine | Role::Class | Role::Pod => &["hierarchy"],
        };
        let memory = &record.usage.memory;
        for (kind, count) in [("pgfault", memory.page_faults), ("pgmajfault", memory.major_page_faults)] {
            let Some(count) = count else { continue };
            for scope in scopes {
                sample(text, name, record, &[("failure_type", kind), ("scope", scope)], amount(count));
            }
        }
    }
}

fn network(text: &mut Text, records: &[CgroupRecord]) {
    let families: [Counted<InterfaceStats>; 8] = [
        ("container_network_receive_bytes_total", "Bytes received.", |i| i.rx_bytes.unwrap_or(0)),
        ("container_network_receive_errors_total", "Errors while receiving.", |i| i.rx_errors.unwrap_or(0)),
        ("container_network_receive_packets_total", "Packets received.", |i| i.rx_packets.0),
        ("container_network_receive_packets_dropped_total", "Packets not received.", |i| i.rx_packets.1),
        ("container_network_transmit_bytes_total", "Bytes sent.", |i| i.tx_bytes.unwrap_or(0)),
        ("container_network_transmit_errors_total", "Errors while sending.", |i| i.tx_errors.unwrap_or(0)),
        ("container_network_transmit_packets_total", "Packets sent.", |i| i.tx_packets.0),
        ("container_network_transmit_packets_dropped_total", "Packets not sent.", |i| i.tx_packets.1),
    ];
    for (name, help, value) in families {
        text.family(name, "counter", help);
        for record in records {
            for interface in &record.interfaces {
                sample(text, name, record, &[("interface", &interface.name)], amount(value(interface)));
            }
        }
    }
}

fn devices(text: &mut Text, records: &[CgroupRecord]) {
    let families: [Counted<DeviceIo>; 4] = [
        ("container_fs_reads_bytes_total", "Bytes read.", |device| device.read_bytes),
        ("container_fs_reads_total", "Reads.", |device| device.reads),
        ("container_fs_writes_bytes_total", "Bytes written.", |device| device.write_bytes),
        ("container_fs_writes_total", "Writes.", |device| device.writes),
    ];
    for (name, help, value) in families {
        text.family(name, "counter", help);
        for record in records {
            for device in &record.usage.io {
                let label = device_name(device.major, device.minor);
                sample(text, name, record, &[("device", &label)], amount(value(device)));
            }
        }
    }
    let name = "container_blkio_device_usage_total";
    text.family(name, "counter", "Bytes by device and direction.");
    for record in records {
        for device in &record.usage.io {
            let (label, major, minor) =
                (device_name(device.major, device.minor), device.major.to_string(), device.minor.to_string());
            for (operation, bytes) in [("Read", device.read_bytes), ("Write", device.write_bytes)] {
                let further =
                    [("device", label.as_str()), ("major", &major), ("minor", &minor), ("operation", operation)];
                sample(text, name, record, &further, amount(bytes));
            }
        }
    }
}

/// `/dev/sda` where the kernel says so.
fn device_name(major: u32, minor: u32) -> String {
    let target = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    let name = target.ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    name.map(|name| format!("/dev/{name}")).unwrap_or_default()
}

const NOTHING: &str = "";

fn one(value: Option<u64>) -> Vec<(&'static str, f64)> {
    value.map(|value| (NOTHING, amount(value))).into_iter().collect()
}

fn one_seconds(nanos: Option<u64>) -> Vec<(&'static str, f64)> {
    nanos.map(|nanos| (NOTHING, seconds(nanos))).into_iter().collect()
}

/// Nanoseconds of pressure.
fn pressure(record: &CgroupRecord, of: fn(&CgroupUsage) -> Option<PsiStats>, full: bool) -> Vec<(&'static str, f64)> {
    one_seconds(of(&record.usage).map(|psi| if full { psi.full.total } else { psi.some.total }))
}

/// The machine and its classes have no limits to speak of.
fn limited(record: &CgroupRecord, value: Option<u64>) -> Vec<(&'static str, f64)> {
    match record.role {
        Role::Machine | Role::Class => Vec::new(),
        // Without a limit it is zero, as upstream writes it.
        Role::Pod | Role::Sandbox | Role::Container => vec![(NOTHING, amount(value.unwrap_or(0)))],
    }
}

const fn gauge(name: &'static str, help: &'static str, values: Values) -> Family {
    Family { name, kind: "gauge", help, label: "", values }
}

const fn counter(name: &'static str, help: &'static str, values: Values) -> Family {
    Family { name, kind: "counter", help, label: "", values }
}

const fn labelled(family: Family, label: &'static str) -> Family {
    Family { label, ..family }
}

const FAMILIES: &[Family] = &[
    counter("container_cpu_cfs_periods_total", "Periods of the quota.", |r| one(r.usage.cpu.periods)),
    counter("container_cpu_cfs_throttled_periods_total", "Periods in which the quota was used up.", |r| {
        one(r.usage.cpu.throttled_periods)
    }),
    counter("container_cpu_cfs_throttled_seconds_total", "Time without processor for want of quota.", |r| {
        one_seconds(r.usage.cpu.throttled)
    }),
    counter("container_cpu_system_seconds_total", "Core-seconds in the kernel.", |r| one_seconds(r.usage.cpu.system)),
    labelled(
        counter("container_cpu_usage_seconds_total", "Core-seconds.", |r| {
            r.usage.cpu.total.map(|nanos| ("total", seconds(nanos))).into_iter().collect()
        }),
        "cpu",
    ),
    counter("container_cpu_user_seconds_total", "Core-seconds in programs.", |r| one_seconds(r.usage.cpu.user)),
    gauge("container_fs_inodes_free", "Free inodes of the file system.", |r| {
        one(r.fs.as_ref().and_then(|fs| fs.inodes_free))
    }),
    gauge("container_fs_inodes_total", "Inodes of the file system.", |r| one(r.fs.as_ref().and_then(|fs| fs.inodes))),
    gauge("container_fs_limit_bytes", "Size of the file system.", |r| {
        one(r.fs.as_ref().and_then(|fs| fs.capacity_bytes))
    }),
    gauge("container_fs_usage_bytes", "Bytes of the file system in use.", |r| {
        one(r.fs.as_ref().and_then(|fs| fs.used_bytes))
    }),
    gauge("container_last_seen", "When it was last seen.", |r| vec![(NOTHING, unix(r.time))]),
    gauge("container_memory_cache", "File pages.", |r| one(r.usage.memory.cache)),
    counter("container_memory_failcnt", "How often the limit was met.", |r| one(r.usage.memory.failures)),
    gauge("container_memory_kernel_usage", "Memory of the kernel for it.", |r| one(r.usage.memory.kernel)),
    gauge("container_memory_mapped_file", "Mapped files.", |r| one(r.usage.memory.mapped_file)),
    gauge("container_memory_max_usage_bytes", "The highest usage.", |r| one(r.usage.memory.max_usage)),
    gauge("container_memory_rss", "Anonymous memory.", |r| one(r.usage.memory.rss)),
    gauge("container_memory_swap", "Swap.", |r| one(r.usage.memory.swap)),
    gauge("container_memory_total_active_file_bytes", "File pages in use.", |r| one(r.usage.memory.active_file)),
    gauge("container_memory_total_inactive_file_bytes", "File pages not in use.", |r| {
        one(r.usage.memory.inactive_file)
    }),
    gauge("container_memory_usage_bytes", "All memory, caches included.", |r| one(r.usage.memory.usage)),
    gauge("container_memory_working_set_bytes", "Memory without inactive file pages.", |r| {
        one(r.usage.memory.working_set)
    }),
    counter("container_oom_events_total", "Processes killed for want of memory.", |r| one(r.usage.memory.oom_kills)),
    counter("container_pressure_cpu_stalled_seconds_total", "Time in which all tasks waited for a processor.", |r| {
        pressure(r, |u| u.pressure.cpu, true)
    }),
    counter("container_pressure_cpu_waiting_seconds_total", "Time in which some task waited for a processor.", |r| {
        pressure(r, |u| u.pressure.cpu, false)
    }),
    counter("container_pressure_io_stalled_seconds_total", "Time in which all tasks waited for devices.", |r| {
        pressure(r, |u| u.pressure.io, true)
    }),
    counter("container_pressure_io_waiting_seconds_total", "Time in which some task waited for devices.", |r| {
        pressure(r, |u| u.pressure.io, false)
    }),
    counter("container_pressure_memory_stalled_seconds_total", "Time in which all tasks waited for memory.", |r| {
        pressure(r, |u| u.pressure.memory, true)
    }),
    counter("container_pressure_memory_waiting_seconds_total", "Time in which some task waited for memory.", |r| {
        pressure(r, |u| u.pressure.memory, false)
    }),
    gauge("container_spec_cpu_period", "The period of the quota, in microseconds.", |r| one(r.usage.limits.cpu_period)),
    gauge("container_spec_cpu_quota", "The quota, in microseconds for each period.", |r| one(r.usage.limits.cpu_quota)),
    gauge("container_spec_cpu_shares", "The weight.", |r| one(r.usage.limits.cpu_shares)),
    gauge("container_spec_memory_limit_bytes", "The memory limit.", |r| limited(r, r.usage.limits.memory)),
    gauge("container_spec_memory_swap_limit_bytes", "The swap limit.", |r| limited(r, r.usage.limits.swap)),
    gauge("container_start_time_seconds", "When it was made.", |r| vec![(NOTHING, unix(r.created_at))]),
    gauge("container_threads", "Processes and threads.", |r| one(r.usage.processes)),
    gauge("container_threads_max", "The most processes and threads.", |r| limited(r, r.usage.limits.processes)),
];

fn unix(time: Timestamp) -> f64 {
    amount(u64::try_from(time.as_second()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use kedge_stats::{CpuUsage, MemoryUsage};

    use super::*;

    fn record(role: Role) -> CgroupRecord {
        let usage = CgroupUsage {
            cpu: CpuUsage { total: Some(2_000_000_000), ..CpuUsage::default() },
            memory: MemoryUsage { page_faults: Some(3), major_page_faults: Some(1), ..MemoryUsage::default() },
            ..CgroupUsage::default()
        };
        CgroupRecord {
            id: "/kubepods/podu/i".to_owned(),
            role,
            namespace: "n".to_owned(),
            pod: "p".to_owned(),
            container: "c".to_owned(),
            image: "image:1".to_owned(),
            name: "i".to_owned(),
            created_at: Timestamp::from_second(7).unwrap(),
            time: Timestamp::from_second(9).unwrap(),
            usage,
            interfaces: vec![InterfaceStats {
                name: "eth0".to_owned(),
                rx_bytes: Some(5),
                ..InterfaceStats::default()
            }],
            fs: None,
        }
    }

    #[test]
    fn names_and_labels_are_cadvisors() {
        let mut text = Text::default();
        render(&mut text, &[record(Role::Container)]);
        let text = text.finish();
        let base = "container=\"c\"";
        let rest = "id=\"/kubepods/podu/i\",image=\"image:1\"";
        let names = "name=\"i\",namespace=\"n\",pod=\"p\"";
        for line in [
            format!("container_cpu_usage_seconds_total{{{base},cpu=\"total\",{rest},{names}}} 2 9000"),
            format!(
                "container_memory_failures_total{{{base},failure_type=\"pgmajfault\",{rest},{names},scope=\"hierarchy\"}} 1 9000"
            ),
            format!("container_network_receive_bytes_total{{{base},{rest},interface=\"eth0\",{names}}} 5 9000"),
            format!("container_spec_memory_limit_bytes{{{base},{rest},{names}}} 0 9000"),
            format!("container_start_time_seconds{{{base},{rest},{names}}} 7 9000"),
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
        }
        assert!(!text.contains("container_memory_rss{"), "what is unknown is absent");
    }

    #[test]
    fn the_machine_has_no_limits() {
        let mut text = Text::default();
        render(&mut text, &[record(Role::Machine)]);
        assert!(!text.finish().contains("container_spec_memory_limit_bytes{"));
    }
}
