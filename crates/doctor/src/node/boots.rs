//! Starts of the machine, from the record of logins, and whether the run before each ended in order.

use std::time::Duration;

use jiff::Timestamp;
use kedge_diagnosis::Fact;

use crate::node::reading::Reading;

const RECORDS: &str = "/var/log/wtmp";
/// The size of a record, and where its fields lie, as glibc's utmp has them.
const SIZE: usize = 384;
const USER: usize = 44;
const SECONDS: usize = 340;
const RUN_LEVEL: i16 = 1;
const BOOT: i16 = 2;
/// Records at the end of the file that are read.
const MOST_RECORDS: usize = 4000;
const MOST_BOOTS: usize = 10;
/// Seconds by which the record of this start may differ from what the kernel says; else the file is another machine's.
const TOLERANCE: i64 = 600;

pub(super) fn read(now: Timestamp, uptime: Duration) -> Reading {
    let mut reading = Reading::default();
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    let started = now - jiff::SignedDuration::try_from(uptime).unwrap_or_default();
    let bytes = std::fs::read(RECORDS).unwrap_or_default();
    let boots = boots(&bytes);
    let is_ours = boots.last().is_some_and(|(time, _)| (time.as_second() - started.as_second()).abs() <= TOLERANCE);
    if !is_ours {
        reading.add_at(Some(started), "uptime", Fact::Boot { id, clean: None });
        reading.miss("how the machine's last run ended", format!("{RECORDS} does not have this start of the machine"));
        return reading;
    }
    let count = boots.len();
    for (number, (time, clean)) in boots.into_iter().enumerate().skip(count.saturating_sub(MOST_BOOTS)) {
        let id = if number + 1 == count { id.clone() } else { String::new() };
        reading.add_at(Some(time), "last -x", Fact::Boot { id, clean });
    }
    reading
}

/// Starts with whether a shutdown stands between them and the start before.
fn boots(bytes: &[u8]) -> Vec<(Timestamp, Option<bool>)> {
    let records = bytes.chunks_exact(SIZE);
    let skipped = records.len().saturating_sub(MOST_RECORDS);
    let (mut boots, mut was_shut_down, mut is_first) = (Vec::new(), false, true);
    for record in records.skip(skipped) {
        let kind = i16::from_ne_bytes([record[0], record[1]]);
        let seconds = <[u8; 4]>::try_from(&record[SECONDS..SECONDS + 4]).map(u32::from_ne_bytes).unwrap_or_default();
        match kind {
            RUN_LEVEL if record[USER..].starts_with(b"shutdown") => was_shut_down = true,
            BOOT => {
                let clean = (!is_first).then_some(was_shut_down);
                boots.extend(Timestamp::from_second(i64::from(seconds)).ok().map(|time| (time, clean)));
                (was_shut_down, is_first) = (false, false);
            }
            _ => {}
        }
    }
    boots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: i16, user: &str, seconds: u32) -> Vec<u8> {
        let mut record = vec![0; SIZE];
        record[..2].copy_from_slice(&kind.to_ne_bytes());
        record[USER..USER + user.len()].copy_from_slice(user.as_bytes());
        record[SECONDS..SECONDS + 4].copy_from_slice(&seconds.to_ne_bytes());
        record
    }

    #[test]
    fn a_start_without_a_shutdown_before_it_is_not_clean() {
        let records = [
            record(BOOT, "reboot", 100),
            record(7, "jane", 150),
            record(RUN_LEVEL, "shutdown", 200),
            record(BOOT, "reboot", 300),
            record(BOOT, "reboot", 400),
        ];
        let clean: Vec<_> =
            boots(&records.concat()).into_iter().map(|(time, clean)| (time.as_second(), clean)).collect();
        assert_eq!(clean, [(100, None), (300, Some(true)), (400, Some(false))]);
        assert_eq!(boots(b"short"), []);
    }
}
