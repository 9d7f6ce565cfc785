//! The last words of a container: its termination message file, or the end of its log.
//!
//! Invariant: never longer than upstream's bounds (4096 bytes; 80 lines and 2048 bytes from logs).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::logs;
use crate::runtime_state::ContainerRecord;

const MAX_BYTES: u64 = 4096;
const MAX_LOG_BYTES: usize = 2048;
const MAX_LOG_LINES: usize = 80;

/// The message; `None` where there is none, so that the runtime's own message stays.
pub(crate) fn read(file: Option<&Path>, record: &ContainerRecord) -> Option<String> {
    let mut message = String::new();
    let mut fallback = record.notes.fallback_to_logs;
    if let Some(path) = file {
        match tail(path, MAX_BYTES) {
            Ok(bytes) => message = String::from_utf8_lossy(&bytes).into_owned(),
            // Removed together with its pod.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                fallback = false;
                message = format!("Error on reading termination log {}: {error}", path.display());
            }
        }
    }
    if message.is_empty() && fallback && record.exit_code != 0 && record.reason != "ContainerCannotRun" {
        message = logs::last_lines(Path::new(&record.log_path), MAX_LOG_LINES, MAX_LOG_BYTES).unwrap_or_default();
    }
    if message.is_empty() {
        return None;
    }
    // What the runtime says about a failed start stays visible.
    if !record.message.is_empty() {
        message = format!("{}: {message}", record.message);
    }
    Some(message)
}

fn tail(path: &Path, bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut content = Vec::new();
    file.take(bytes).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_state::ContainerPhase;
    use crate::runtime_state::fixtures::container;

    #[test]
    fn the_file_comes_first_and_the_log_only_after_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("message");
        let log = directory.path().join("0.log");
        std::fs::write(&log, "2026-01-01T00:00:00.000000000Z stderr F boom\n").unwrap();
        let check = |content: &str, exit_code: i32, fallback: bool, expected: Option<&str>| {
            std::fs::write(&file, content).unwrap();
            let mut record = container("a", ContainerPhase::Exited, exit_code);
            record.log_path = log.to_string_lossy().into_owned();
            record.notes.fallback_to_logs = fallback;
            assert_eq!(read(Some(&file), &record).as_deref(), expected);
        };
        check("bye", 1, true, Some("bye"));
        check("", 1, true, Some("boom\n"));
        check("", 0, true, None);
        check("", 1, false, None);
        check(&"x".repeat(5000), 1, false, Some(&"x".repeat(4096)));
    }
}
