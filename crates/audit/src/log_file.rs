//! A file that events are appended to, and that is put aside when it is large.
//!
//! Files that were put aside are called as upstream calls them (`audit-2026-01-02T03-04-05.678.log`), compressed and
//! removed beside the writing. Invariants: a line is in the file whole or not at all; a file that was there is never cut.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parking_lot::Mutex;

const MEGABYTE: u64 = 1 << 20;
const COMPRESSED: &str = ".gz";
const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// When files are put aside, and for how long they stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// Bytes; never where 0.
    pub(crate) max_size: u64,
    /// All where 0.
    pub(crate) max_backups: usize,
    /// For ever where 0.
    pub(crate) max_age_days: i64,
    pub(crate) compress: bool,
}

impl Rotation {
    pub(crate) fn megabytes(megabytes: i64) -> u64 {
        u64::try_from(megabytes).unwrap_or_default().saturating_mul(MEGABYTE)
    }
}

/// Where lines go.
pub(crate) enum LogFile {
    Output,
    File(RotatingFile),
}

impl LogFile {
    /// Opens the file, and makes it where it is not there; `-` is standard output.
    pub(crate) fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Output);
        }
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let (file, size) = open(path)?;
        Ok(Self::File(RotatingFile { path: path.to_owned(), rotation, file, size, tidying: Arc::default() }))
    }

    /// Appends whole lines.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Output => {
                let mut output = io::stdout().lock();
                output.write_all(lines)?;
                output.flush()
            }
            Self::File(file) => file.append(lines),
        }
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

pub(crate) struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    size: u64,
    /// Held while files are compressed and removed.
    tidying: Arc<Mutex<()>>,
}

impl RotatingFile {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let max = self.rotation.max_size;
        if max > 0 && self.size > 0 && self.size + lines.len() as u64 > max {
            self.rotate()?;
        }
        let written = self.file.write_all(lines);
        if written.is_err() {
            // A full disk may have taken a part. What is no regular file cannot be cut, and need not be.
            let _ = self.file.set_len(self.size);
            return written;
        }
        self.size += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut now = Timestamp::now();
        while backup_path(&self.path, now).exists() {
            now += jiff::SignedDuration::from_millis(1);
        }
        std::fs::rename(&self.path, backup_path(&self.path, now))?;
        (self.file, self.size) = open(&self.path)?;
        let (path, rotation, tidying) = (self.path.clone(), self.rotation, Arc::clone(&self.tidying));
        std::thread::spawn(move || {
            let _one_at_a_time = tidying.lock();
            if let Err(error) = tidy(&path, rotation, now) {
                tracing::warn!(path = %path.display(), %error, "old audit logs cannot be tidied up");
            }
        });
        Ok(())
    }
}

/// The part of a file's name before its extension, and the extension with its dot.
fn name_parts(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.rfind('.') {
        Some(dot) => (name[..dot].to_owned(), name[dot..].to_owned()),
        None => (name, String::new()),
    }
}

fn backup_path(path: &Path, now: Timestamp) -> PathBuf {
    let (stem, extension) = name_parts(path);
    let time = now.to_zoned(TimeZone::UTC).strftime(TIME);
    path.with_file_name(format!("{stem}-{time}{extension}"))
}

/// Files that were put aside, youngest first, with when that was.
fn backups(path: &Path) -> io::Result<Vec<(Timestamp, PathBuf)>> {
    let (stem, extension) = name_parts(path);
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let plain = name.strip_suffix(COMPRESSED).unwrap_or(&name);
        let time = plain.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&extension));
        let time = time.and_then(|time| jiff::civil::DateTime::strptime(TIME, time).ok());
        if let Some(time) = time.and_then(|time| time.to_zoned(TimeZone::UTC).ok()) {
            found.push((time.timestamp(), dir.join(name)));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

/// Removes what is too old or too many, and compresses the rest.
fn tidy(path: &Path, rotation: Rotation, now: Timestamp) -> io::Result<()> {
    let days = jiff::SignedDuration::from_hours(rotation.max_age_days.saturating_mul(24).min(24 * 36_500));
    for (index, (time, backup)) in backups(path)?.into_iter().enumerate() {
        let is_too_many = rotation.max_backups > 0 && index >= rotation.max_backups;
        let is_too_old = rotation.max_age_days > 0 && now.duration_since(time) > days;
        if is_too_many || is_too_old {
            std::fs::remove_file(&backup)?;
        } else if rotation.compress && backup.extension().is_none_or(|extension| extension != "gz") {
            compress(&backup)?;
        }
    }
    Ok(())
}

fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(COMPRESSED);
    let target = PathBuf::from(name);
    let packed = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&target)?;
    let mut encoder = GzEncoder::new(packed, Compression::default());
    let done = io::copy(&mut File::open(path)?, &mut encoder).and_then(|_| encoder.finish()?.sync_all());
    if done.is_err() {
        let _ = std::fs::remove_file(&target);
        return done;
    }
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const KEEP: Rotation = Rotation { max_size: 10, max_backups: 0, max_age_days: 0, compress: false };

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn large_files_are_put_aside_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/audit.log");
        let mut log = LogFile::open(&path, KEEP).unwrap();
        log.append(b"12345\n").unwrap();
        drop(log);
        let mut log = LogFile::open(&path, KEEP).unwrap();
        log.append(b"67890\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "67890\n");
        let aside = backups(&path).unwrap();
        assert_eq!(aside.len(), 1);
        assert_eq!(std::fs::read_to_string(&aside[0].1).unwrap(), "12345\n");
        // A line that is longer than a file may be is written all the same.
        log.append(b"a line that is longer\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a line that is longer\n");
    }

    #[test]
    fn files_that_are_too_old_or_too_many_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        for day in ["05", "06", "07", "08"] {
            let time: Timestamp = format!("2026-01-{day}T00:00:00.5Z").parse().unwrap();
            std::fs::write(backup_path(&path, time), day).unwrap();
        }
        for other in ["audit-notes.log", "other-2026-01-01T00-00-00.000.log", "audit.log"] {
            std::fs::write(dir.path().join(other), "").unwrap();
        }
        tidy(&path, Rotation { max_age_days: 4, ..KEEP }, now).unwrap();
        tidy(&path, Rotation { max_backups: 2, compress: true, ..KEEP }, now).unwrap();
        assert_eq!(
            names(dir.path()),
            [
                "audit-2026-01-07T00-00-00.500.log.gz",
                "audit-2026-01-08T00-00-00.500.log.gz",
                "audit-notes.log",
                "audit.log",
                "other-2026-01-01T00-00-00.000.log",
            ]
        );
        let packed = File::open(dir.path().join("audit-2026-01-08T00-00-00.500.log.gz")).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "08");
        // What is compressed already counts and goes, too.
        tidy(&path, Rotation { max_backups: 1, compress: true, ..KEEP }, now).unwrap();
        assert_eq!(backups(&path).unwrap().len(), 1);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut log = LogFile::open(Path::new("/dev/full"), KEEP).unwrap();
        assert!(log.append(b"x\n").is_err());
        assert!(log.append(b"x\n").is_err());
    }
}
