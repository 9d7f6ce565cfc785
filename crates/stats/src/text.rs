//! The kernel's text files as numbers.
//!
//! Pure. Invariant: a line that is not understood is left out, never guessed.

use crate::cgroup::DeviceIo;
use crate::summary::{InterfaceStats, PsiData, PsiStats};

/// A file with one number; `None` for `max`.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of a line `name value`.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Bytes of a line `name: n kB` of `/proc/meminfo`.
pub(crate) fn meminfo(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Pressure stall information; the kernel counts microseconds.
pub(crate) fn pressure(text: &str) -> Option<PsiStats> {
    let line = |kind: &str| {
        let words = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let value = |name: &str| words.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        Some(PsiData {
            total: value("total")?.parse::<u64>().ok()? * 1000,
            avg10: value("avg10")?.parse().ok()?,
            avg60: value("avg60")?.parse().ok()?,
            avg300: value("avg300")?.parse().ok()?,
        })
    };
    // Older kernels have no `full` for processors.
    Some(PsiStats { some: line("some")?, full: line("full").unwrap_or_default() })
}

/// All interfaces of a `net/dev` file but loopback.
pub(crate) fn interfaces(text: &str) -> Vec<InterfaceStats> {
    text.lines()
        .filter_map(|line| {
            let (name, figures) = line.split_once(':')?;
            let name = name.trim();
            let figures: Vec<u64> = figures.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let at = |index: usize| figures.get(index).copied();
            (name != "lo" && figures.len() >= 12).then(|| InterfaceStats {
                name: name.to_owned(),
                rx_bytes: at(0),
                rx_errors: at(2),
                tx_bytes: at(8),
                tx_errors: at(10),
                rx_packets: (at(1).unwrap_or(0), at(3).unwrap_or(0)),
                tx_packets: (at(9).unwrap_or(0), at(11).unwrap_or(0)),
            })
        })
        .collect()
}

/// Version 2's `io.stat`.
pub(crate) fn io_stat(text: &str) -> Vec<DeviceIo> {
    text.lines()
        .filter_map(|line| {
            let (device, figures) = line.split_once(' ')?;
            let (major, minor) = device.split_once(':')?;
            let value = |name: &str| {
                let word = figures.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
                word.and_then(|word| word.parse().ok()).unwrap_or(0)
            };
            Some(DeviceIo {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                read_bytes: value("rbytes"),
                write_bytes: value("wbytes"),
                reads: value("rios"),
                writes: value("wios"),
            })
        })
        .collect()
}

/// Version 1's `blkio.throttle.io_service_bytes` and `blkio.throttle.io_serviced`.
pub(crate) fn blkio(bytes: &str, operations: &str) -> Vec<DeviceIo> {
    let mut devices: Vec<DeviceIo> = Vec::new();
    for (text, counts_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [device, kind, amount] = words[..] else { continue };
            let Some((major, minor)) = device.split_once(':') else { continue };
            let (Ok(major), Ok(minor), Ok(amount)) = (major.parse(), minor.parse(), amount.parse::<u64>()) else {
                continue;
            };
            let known = devices.iter().position(|known| (known.major, known.minor) == (major, minor));
            let index = known.unwrap_or_else(|| {
                devices.push(DeviceIo { major, minor, ..DeviceIo::default() });
                devices.len() - 1
            });
            match (kind, counts_bytes) {
                ("Read", true) => devices[index].read_bytes = amount,
                ("Write", true) => devices[index].write_bytes = amount,
                ("Read", false) => devices[index].reads = amount,
                ("Write", false) => devices[index].writes = amount,
                _ => {}
            }
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_values() {
        assert_eq!(number("12\n"), Some(12));
        assert_eq!(number("max\n"), None);
        assert_eq!(field("total_rss 5\nrss 3\n", "rss"), Some(3));
        assert_eq!(field("rss_huge 3\n", "rss"), None);
        assert_eq!(meminfo("MemTotal:     2 kB\nMemFree: 1 kB\n", "MemTotal"), Some(2048));
    }

    #[test]
    fn pressure_is_in_nanoseconds() {
        let text = "some avg10=1.50 avg60=0.10 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
        let psi = pressure(text).unwrap();
        assert_eq!((psi.some.total, psi.some.avg10, psi.full.total), (7000, 1.5, 3000));
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn loopback_is_left_out() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0:10 2 3 4 0 0 0 0 20 5 6 7 0 0 0 0\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].rx_bytes, found[0].rx_errors, found[0].tx_bytes), (Some(10), Some(3), Some(20)));
        assert_eq!((found[0].rx_packets, found[0].tx_packets), ((2, 4), (5, 7)));
    }

    #[test]
    fn devices_of_either_version() {
        let expected = DeviceIo { major: 8, minor: 0, read_bytes: 4096, write_bytes: 512, reads: 2, writes: 1 };
        assert_eq!(io_stat("8:0 rbytes=4096 wbytes=512 rios=2 wios=1 dbytes=0 dios=0\n"), [expected]);
        let bytes = "8:0 Read 4096\n8:0 Write 512\n8:0 Total 4608\nTotal 4608\n";
        assert_eq!(blkio(bytes, "8:0 Read 2\n8:0 Write 1\n"), [expected]);
    }
}
