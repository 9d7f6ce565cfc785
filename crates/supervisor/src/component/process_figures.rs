//! What every Prometheus client shows of its process, and which build it is.
//!
//! Invariant: what the kernel does not tell is left out.

use kedge_metrics::{Text, amount};

/// Of this process.
pub(super) fn write(text: &mut Text) {
    text.family("kubernetes_build_info", "gauge", "Always 1, with the version as labels.");
    let version = kedge_meta::image_tag();
    text.sample("kubernetes_build_info", &[("git_version", &version), ("platform", std::env::consts::ARCH)], 1.0);
    if let Some(kibibytes) = status_field("VmRSS:") {
        text.single(
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory of the process.",
            amount(kibibytes * 1024),
        );
    }
    if let Some(kibibytes) = status_field("VmSize:") {
        text.single(
            "process_virtual_memory_bytes",
            "gauge",
            "Virtual memory of the process.",
            amount(kibibytes * 1024),
        );
    }
    if let Some(seconds) = cpu_seconds() {
        text.single("process_cpu_seconds_total", "counter", "Core-seconds of the process.", seconds);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        let count = u64::try_from(files.count()).unwrap_or(u64::MAX);
        text.single("process_open_fds", "gauge", "Open file descriptors.", amount(count));
    }
}

fn status_field(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// By the scheduler's account, in nanoseconds; the sum of all threads.
fn cpu_seconds() -> Option<f64> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    let of_thread = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let nanos: u64 = threads.flatten().filter_map(|thread| of_thread(thread.path())).sum();
    Some(kedge_metrics::seconds(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_shown() {
        let mut text = Text::default();
        write(&mut text);
        let text = text.finish();
        for name in ["kubernetes_build_info{", "process_resident_memory_bytes ", "process_cpu_seconds_total "] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name:?} is not in\n{text}");
        }
    }
}
