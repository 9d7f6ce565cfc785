//! Container logs in the CRI's format: lines of `time stream tag text`, partial lines, tails and following across rotation.
//!
//! Not a store of logs: the runtime writes them. Invariant: the bytes that a container wrote come out unchanged; only
//! whole CRI lines are interpreted.

mod read;
mod rotate;

use std::path::Path;

pub(crate) use read::{LogRequest, stream};
pub(crate) use rotate::rotate_all;

/// One line of a CRI log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine<'a> {
    /// RFC 3339 with nanoseconds, as the runtime wrote it.
    pub(crate) timestamp: &'a str,
    pub(crate) stderr: bool,
    /// The container's line goes on in the next one.
    pub(crate) partial: bool,
    pub(crate) text: &'a [u8],
}

/// Reads one line (without its newline); `None` where it is not in the CRI's format.
pub(crate) fn parse_line(line: &[u8]) -> Option<LogLine<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let timestamp = std::str::from_utf8(parts.next()?).ok()?;
    let stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    // Tags are separated by colons; the first one says whether the line is whole.
    let partial = match parts.next()?.split(|byte| *byte == b':').next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    if !timestamp.contains('T') {
        return None;
    }
    Some(LogLine { timestamp, stderr, partial, text: parts.next().unwrap_or_default() })
}

/// The last lines of a log, without timestamps, at most so many lines and bytes.
pub(crate) fn last_lines(path: &Path, lines: usize, bytes: usize) -> Option<String> {
    let content = std::fs::read(path).ok()?;
    let start = tail_start(&content, lines);
    let mut text = Vec::new();
    for line in content[start..].split(|byte| *byte == b'\n').filter_map(parse_line) {
        text.extend_from_slice(line.text);
        if !line.partial {
            text.push(b'\n');
        }
    }
    let start = text.len().saturating_sub(bytes);
    Some(String::from_utf8_lossy(&text[start..]).into_owned())
}

/// Where the last so many lines of a file begin.
fn tail_start(content: &[u8], lines: usize) -> usize {
    if lines == 0 {
        return content.len();
    }
    let end = content.len() - usize::from(content.last() == Some(&b'\n'));
    let mut left = lines;
    for (index, byte) in content[..end].iter().enumerate().rev() {
        if *byte == b'\n' {
            left -= 1;
            if left == 0 {
                return index + 1;
            }
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |line: &str, expected: Option<(&str, bool, bool, &str)>| {
            let got = parse_line(line.as_bytes());
            let got = got
                .as_ref()
                .map(|line| (line.timestamp, line.stderr, line.partial, std::str::from_utf8(line.text).unwrap()));
            assert_eq!(got, expected, "{line}");
        };
        let time = "2026-01-01T00:00:00.000000001Z";
        check(&format!("{time} stdout F hello world"), Some((time, false, false, "hello world")));
        check(&format!("{time} stderr P:x half"), Some((time, true, true, "half")));
        check(&format!("{time} stdout F "), Some((time, false, false, "")));
        check(&format!("{time} stdout F"), Some((time, false, false, "")));
        check(&format!("{time} stdin F x"), None);
        check(&format!("{time} stdout X x"), None);
        check("hello", None);
        check("", None);
    }

    #[test]
    fn tails() {
        for (content, lines, expected) in
            [("a\nb\nc\n", 2, "b\nc\n"), ("a\nb\nc", 1, "c"), ("a\n", 5, "a\n"), ("", 1, ""), ("a\nb\n", 0, "")]
        {
            assert_eq!(&content[tail_start(content.as_bytes(), lines)..], expected, "{content:?} {lines}");
        }
    }
}
