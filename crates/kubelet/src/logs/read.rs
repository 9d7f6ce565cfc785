//! A client's view of a log file: filters, bounds and following.
//!
//! Invariant: memory is bounded by one chunk and one line, however long the log is.

use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use super::parse_line;

const CHUNK: usize = 32 * 1024;
const POLL: Duration = Duration::from_millis(100);
const MAX_LINE: usize = 1024 * 1024;

/// What a client asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogRequest {
    pub(crate) path: PathBuf,
    pub(crate) follow: bool,
    pub(crate) timestamps: bool,
    pub(crate) tail_lines: Option<usize>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) limit_bytes: Option<u64>,
    /// Only `stdout` (false) or `stderr` (true).
    pub(crate) only: Option<bool>,
}

/// Sends the log to `out` until its end, or while following until `alive` says that the container has ended.
pub(crate) async fn stream(
    request: LogRequest,
    out: mpsc::Sender<Bytes>,
    alive: impl Fn() -> bool + Send,
) -> std::io::Result<()> {
    let mut file = File::open(&request.path).await?;
    let start = start_offset(&mut file, request.tail_lines).await?;
    file.seek(SeekFrom::Start(start)).await?;
    let mut writer = Writer { request: &request, left: request.limit_bytes, fresh: true, pending: Vec::new() };
    let mut chunk = vec![0; CHUNK];
    let mut ended = false;
    loop {
        let read = file.read(&mut chunk).await?;
        if read > 0 {
            let (text, full) = writer.absorb(&chunk[..read]);
            if !text.is_empty() && out.send(Bytes::from(text)).await.is_err() {
                return Ok(());
            }
            if full {
                return Ok(());
            }
            continue;
        }
        if !request.follow || out.is_closed() {
            return Ok(());
        }
        if let Some(next) = rotated(&file, &request.path).await {
            file = next;
            continue;
        }
        if ended {
            return Ok(());
        }
        // One more read after the end, so that the last words are not lost.
        ended = !alive();
        tokio::select! {
            () = out.closed() => return Ok(()),
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// The new file, where the runtime began another one under the same name.
async fn rotated(file: &File, path: &Path) -> Option<File> {
    let current = file.metadata().await.ok()?;
    let named = tokio::fs::metadata(path).await.ok()?;
    if (named.dev(), named.ino()) == (current.dev(), current.ino()) {
        return None;
    }
    File::open(path).await.ok()
}

/// Reads backwards in chunks until enough lines were seen.
async fn start_offset(file: &mut File, lines: Option<usize>) -> std::io::Result<u64> {
    let Some(lines) = lines else { return Ok(0) };
    let length = file.metadata().await?.len();
    if lines == 0 {
        return Ok(length);
    }
    let mut end = length;
    let mut newlines = 0;
    let mut chunk = vec![0; CHUNK];
    while end > 0 {
        let size = usize::try_from(end).unwrap_or(CHUNK).min(CHUNK);
        let start = end - size as u64;
        file.seek(SeekFrom::Start(start)).await?;
        file.read_exact(&mut chunk[..size]).await?;
        for index in (0..size).rev() {
            let position = start + index as u64;
            if chunk[index] == b'\n' && position + 1 != length {
                newlines += 1;
                if newlines == lines {
                    return Ok(position + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

struct Writer<'a> {
    request: &'a LogRequest,
    left: Option<u64>,
    /// The next text begins a line of the container.
    fresh: bool,
    pending: Vec<u8>,
}

impl Writer<'_> {
    /// The text of all whole lines in what has come so far, and whether the bound on bytes is reached.
    fn absorb(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut text = Vec::with_capacity(pending.len());
        let mut start = 0;
        while let Some(length) = pending[start..].iter().position(|byte| *byte == b'\n') {
            self.line(&pending[start..start + length], &mut text);
            start += length + 1;
        }
        // A line without an end is dropped where it grows beyond every bound of the runtime.
        if pending.len() - start <= MAX_LINE {
            self.pending = pending[start..].to_vec();
        }
        let Some(left) = self.left else { return (text, false) };
        let length = text.len() as u64;
        if length >= left {
            text.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            return (text, true);
        }
        self.left = Some(left - length);
        (text, false)
    }

    fn line(&mut self, line: &[u8], text: &mut Vec<u8>) {
        let Some(line) = parse_line(line) else { return };
        if self.request.only.is_some_and(|stderr| stderr != line.stderr) {
            return;
        }
        if let Some(since) = self.request.since
            && line.timestamp.parse::<Timestamp>().is_ok_and(|at| at < since)
        {
            return;
        }
        if self.request.timestamps && self.fresh {
            text.extend_from_slice(line.timestamp.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(line.text);
        if !line.partial {
            text.push(b'\n');
        }
        self.fresh = !line.partial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n\
                       2026-01-01T00:00:02Z stdout P tw\n\
                       2026-01-01T00:00:02Z stdout F o\n\
                       2026-01-01T00:00:03Z stderr F three\n";

    async fn read(request: LogRequest) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let (out, mut chunks) = mpsc::channel(8);
        stream(LogRequest { path, ..request }, out, || false).await.unwrap();
        let mut text = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn filters_and_bounds() {
        let plain = LogRequest::default;
        assert_eq!(read(plain()).await, "one\ntwo\nthree\n");
        assert_eq!(read(LogRequest { tail_lines: Some(1), ..plain() }).await, "three\n");
        assert_eq!(read(LogRequest { tail_lines: Some(0), ..plain() }).await, "");
        assert_eq!(read(LogRequest { tail_lines: Some(99), ..plain() }).await, "one\ntwo\nthree\n");
        assert_eq!(read(LogRequest { limit_bytes: Some(6), ..plain() }).await, "one\ntw");
        assert_eq!(read(LogRequest { only: Some(true), ..plain() }).await, "three\n");
        let since = Some("2026-01-01T00:00:02Z".parse().unwrap());
        let stamped = LogRequest { since, timestamps: true, ..plain() };
        assert_eq!(read(stamped).await, "2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z three\n");
        assert_eq!(read(LogRequest { follow: true, ..plain() }).await, "one\ntwo\nthree\n");
    }
}
