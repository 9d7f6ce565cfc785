//! What a node or container uses, and how the API writes it.
//!
//! Pure. Invariant: texts are those of upstream's quantities and durations.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

/// Use over a window that ended at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) time: Timestamp,
    pub(crate) window: Duration,
    /// Billionths of a core.
    pub(crate) cpu: u64,
    /// Bytes.
    pub(crate) memory: u64,
}

impl Usage {
    /// As a resource list.
    pub(crate) fn json(&self) -> Value {
        json!({"cpu": cpu_text(self.cpu), "memory": memory_text(self.memory)})
    }
}

/// Billionths of a core: `250m`, `1234567n`.
pub(crate) fn cpu_text(nanos: u64) -> String {
    if nanos == 0 {
        return "0".to_owned();
    }
    for (unit, suffix) in [(1_000_000_000, ""), (1_000_000, "m"), (1000, "u")] {
        if nanos.is_multiple_of(unit) {
            return format!("{}{suffix}", nanos / unit);
        }
    }
    format!("{nanos}n")
}

/// Bytes: `12Mi`, `3456Ki`, `789`.
pub(crate) fn memory_text(bytes: u64) -> String {
    if bytes == 0 {
        return "0".to_owned();
    }
    for (power, suffix) in [(60, "Ei"), (50, "Pi"), (40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
        if bytes.is_multiple_of(1 << power) {
            return format!("{}{suffix}", bytes >> power);
        }
    }
    bytes.to_string()
}

/// A duration as Go prints it: `15.05s`, `1m0s`.
pub(crate) fn duration_text(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if seconds == 0 {
        let short = |value: u32, unit: u32, suffix: &str| {
            let fraction = trimmed(value % unit, unit);
            format!("{}{fraction}{suffix}", value / unit)
        };
        return match nanos {
            0 => "0s".to_owned(),
            1..1000 => format!("{nanos}ns"),
            1000..1_000_000 => short(nanos, 1000, "µs"),
            _ => short(nanos, 1_000_000, "ms"),
        };
    }
    let rest = format!("{}{}s", seconds % 60, trimmed(nanos, 1_000_000_000));
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => rest,
        (0, minutes) => format!("{minutes}m{rest}"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
    }
}

/// `.05` for five hundredths of the unit; nothing for zero.
fn trimmed(part: u32, unit: u32) -> String {
    if part == 0 {
        return String::new();
    }
    let digits = unit.ilog10() as usize;
    format!(".{}", format!("{part:0digits$}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstreams() {
        for (nanos, text) in [(0, "0"), (2_000_000_000, "2"), (250_000_000, "250m"), (1_234_567, "1234567n")] {
            assert_eq!(cpu_text(nanos), text);
        }
        for (bytes, text) in [(0, "0"), (1 << 20, "1Mi"), (3 << 10, "3Ki"), (1025, "1025"), (5 << 30, "5Gi")] {
            assert_eq!(memory_text(bytes), text);
        }
        for (millis, text) in
            [(15_050, "15.05s"), (60_000, "1m0s"), (3_600_500, "1h0m0.5s"), (0, "0s"), (12, "12ms"), (90_000, "1m30s")]
        {
            assert_eq!(duration_text(Duration::from_millis(millis)), text);
        }
    }
}
