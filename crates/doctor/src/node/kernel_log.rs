//! The kernel's log: its ring, or journald's copy where that may not be read; and what was kept of a crash.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use kedge_diagnosis::LogSource;

use crate::node::journal::records;
use crate::node::program;
use crate::node::reading::Reading;

const RING: &str = "/dev/kmsg";
/// Records that are read, and lines that are kept, at most.
const MOST_RECORDS: usize = 50_000;
const MOST_LINES: usize = 1500;
/// Less urgent records are kept only if they have one of the words: 4 is a warning.
const WARNING: u32 = 4;
const WORDS: &[&str] = &[
    "avc:",
    "apparmor=",
    "bad checksum",
    "Hardware Error",
    "read-only",
    "unregister_netdevice",
    "oom-kill",
    "Killed process",
];
/// Where a kernel that panics leaves its last words, and what is read of a file there.
const CRASHES: &[&str] = &["/sys/fs/pstore", "/var/lib/systemd/pstore"];
const MOST_BYTES: u64 = 64 << 10;

/// Reads the ring of this start of the machine.
pub(super) fn read_ring(now: Timestamp, uptime: Duration) -> Result<Reading, std::io::Error> {
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let mut ring = OpenOptions::new().read(true).custom_flags(flags).open(RING)?;
    let boot = now - jiff::SignedDuration::try_from(uptime).unwrap_or_default();
    let mut lines = std::collections::VecDeque::new();
    let mut record = [0; 8192];
    for _ in 0..MOST_RECORDS {
        match ring.read(&mut record) {
            Ok(0) => break,
            Ok(length) => lines.extend(line(&String::from_utf8_lossy(&record[..length]), boot)),
            // Records were overwritten meanwhile; the next read goes on with those that are left.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
        if lines.len() > MOST_LINES {
            lines.pop_front();
        }
    }
    let mut reading = Reading::default();
    for (time, text) in lines {
        reading.line(time, "dmesg", LogSource::Kernel, &text);
    }
    Ok(reading)
}

/// Time and text of a record `priority,number,microseconds,flags;text`, if it matters.
fn line(record: &str, boot: Timestamp) -> Option<(Option<Timestamp>, String)> {
    let (head, text) = record.split_once(';')?;
    let mut fields = head.split(',');
    let urgency = fields.next()?.parse::<u32>().ok()? & 7;
    let micros: i64 = fields.nth(1)?.parse().ok()?;
    let text = text.lines().next()?;
    let is_kept = urgency <= WARNING || WORDS.iter().any(|word| text.contains(word));
    is_kept.then(|| (boot.checked_add(jiff::SignedDuration::from_micros(micros)).ok(), text.to_owned()))
}

/// The same from the journal: of this start, or of the one before.
pub(super) async fn read_journal(boot: &str, lines: &str) -> Reading {
    let mut reading = Reading::default();
    let arguments =
        ["-q", "--no-pager", "-k", "-b", boot, "-p", "warning", "-n", lines, "-o", "json", "--output-fields=MESSAGE"];
    match program::output("journalctl", &arguments).await {
        Ok(said) => records(&said, LogSource::Kernel, &format!("journalctl -k -b {boot}"), &mut reading),
        Err(why) => reading.miss("kernel log", why),
    }
    reading
}

/// Last words of kernels that panicked.
pub(super) fn read_crashes() -> Reading {
    let mut reading = Reading::default();
    for directory in CRASHES {
        crashes_below(Path::new(directory), 1, &mut reading);
    }
    reading
}

fn crashes_below(directory: &Path, depth: u32, reading: &mut Reading) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.flatten().take(64).map(|entry| entry.path()) {
        if path.is_dir() && depth > 0 {
            crashes_below(&path, depth - 1, reading);
            continue;
        }
        let (Ok(file), Ok(about)) = (std::fs::File::open(&path), std::fs::metadata(&path)) else { continue };
        let mut bytes = Vec::new();
        if file.take(MOST_BYTES).read_to_end(&mut bytes).is_err() {
            continue;
        }
        let time = about.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        let text = String::from_utf8_lossy(&bytes);
        let origin = path.display().to_string();
        for line in text
            .lines()
            .filter(|line| line.contains("panic") || line.contains("lockup") || line.contains("Hardware Error"))
        {
            reading.line(time, &origin, LogSource::Kernel, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_matter_are_kept_with_their_time() {
        let boot = Timestamp::from_second(1_700_000_000).expect("a time");
        let kept = line("3,12,2000000,-;EXT4-fs error (device sda1)\n SUBSYSTEM=block\n", boot);
        let two = Timestamp::from_second(1_700_000_002).ok();
        assert_eq!(kept, Some((two, "EXT4-fs error (device sda1)".to_owned())));
        assert!(line("6,13,1,-;usb 1-1: new device", boot).is_none());
        assert!(line("5,13,1,-;audit: type=1400 audit(1): avc:  denied { read }", boot).is_some());
        assert!(line("30,13,1,-;systemd[1]: Started x", boot).is_none());
        assert!(line("no record", boot).is_none());
    }

    #[test]
    fn last_words_of_a_kernel_are_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let inner = directory.path().join("17000");
        std::fs::create_dir(&inner).expect("it is made");
        std::fs::write(inner.join("dmesg.txt"), "<6>ok\n<0>[1.0] Kernel panic - not syncing: x\n")
            .expect("it is written");
        let mut reading = Reading::default();
        crashes_below(directory.path(), 1, &mut reading);
        assert_eq!(reading.facts().filter(|(time, _)| time.is_some()).count(), 1);
    }
}
