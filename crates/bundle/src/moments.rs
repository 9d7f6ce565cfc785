//! When a line was written, and by whom, in the forms that logs have.
//!
//! Pure. Years and zones that a line leaves out come from `near`, a time close to it: the line is never later than a day
//! after it.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// A line taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was written.
    pub time: Option<Timestamp>,
    /// The program that wrote it, where the line says so.
    pub program: Option<&'a str>,
    /// The rest.
    pub text: &'a str,
}

/// Takes a line apart.
pub fn take_apart(line: &str, near: Timestamp) -> Line<'_> {
    let line = line.trim_end();
    container(line).or_else(|| journal(line, near)).or_else(|| kernel(line)).unwrap_or_else(|| Line {
        time: within(line, near),
        program: None,
        text: line,
    })
}

/// As runtimes write it: `TIME stdout F TEXT`.
fn container(line: &str) -> Option<Line<'_>> {
    let (time, rest) = line.split_once(' ')?;
    let time = time.parse().ok()?;
    let text = rest.strip_prefix("stdout ").or_else(|| rest.strip_prefix("stderr "))?;
    let text = text.strip_prefix("F ").or_else(|| text.strip_prefix("P ")).unwrap_or(text);
    Some(Line { time: Some(time), program: None, text })
}

/// As journald and syslog write it: `Jul 22 10:00:00 HOST PROGRAM[1]: TEXT`, or with a whole time.
fn journal(line: &str, near: Timestamp) -> Option<Line<'_>> {
    let (time, rest) = match line.split_once(' ') {
        Some((first, rest)) if first.len() >= 19 && first.as_bytes()[10] == b'T' => (whole(first)?, rest),
        _ => (month_first(line.get(..15)?, near)?, line.get(16..)?),
    };
    let (_, rest) = rest.split_once(' ')?;
    let (program, text) = rest.split_once(": ")?;
    let program = program.split('[').next()?;
    let is_program = !program.is_empty() && program.chars().all(|c| c.is_alphanumeric() || "-_.@()/".contains(c));
    is_program.then_some(Line { time: Some(time), program: Some(program), text })
}

/// As the kernel's ring has it: `[  12.345678] TEXT`, or with a readable time.
fn kernel(line: &str) -> Option<Line<'_>> {
    let (stamp, text) = line.strip_prefix('[')?.split_once("] ")?;
    let stamp = stamp.trim();
    let is_seconds =
        stamp.split_once('.').is_some_and(|(whole, part)| (whole.to_owned() + part).parse::<u64>().is_ok());
    let time = DateTime::strptime("%a %b %d %H:%M:%S %Y", stamp).ok().and_then(in_utc);
    (is_seconds || time.is_some()).then_some(Line { time, program: Some("kernel"), text })
}

/// A time within the line, which stays a part of its text.
fn within(line: &str, near: Timestamp) -> Option<Timestamp> {
    let first = line.split_whitespace().next()?;
    if let Some(time) = whole(first) {
        return Some(time);
    }
    if let Some(at) =
        ["\"ts\":\"", "time=\"", "\"timestamp\":\""].iter().find_map(|key| Some(line.find(key)? + key.len()))
    {
        return whole(line[at..].split('"').next()?);
    }
    klog(line, near)
}

/// klog's: `E0722 10:00:00.123456 ...`.
fn klog(line: &str, near: Timestamp) -> Option<Timestamp> {
    let is_klog = line.starts_with(['I', 'W', 'E', 'F']) && line.get(1..5)?.bytes().all(|byte| byte.is_ascii_digit());
    if !is_klog {
        return None;
    }
    let part = |range: std::ops::Range<usize>| line.get(range)?.parse::<i8>().ok();
    let clock = [part(6..8)?, part(9..11)?, part(12..14)?];
    of_the_year(part(1..3)?, part(3..5)?, clock, near)
}

/// A time with its date, with a zone or in UTC.
fn whole(text: &str) -> Option<Timestamp> {
    let zoned = text.parse::<Timestamp>().or_else(|_| {
        // journald leaves out the colon of the zone.
        jiff::fmt::strtime::parse("%Y-%m-%dT%H:%M:%S%z", text).and_then(|parsed| parsed.to_timestamp())
    });
    zoned.ok().or_else(|| in_utc(text.parse::<DateTime>().ok().filter(|_| text.contains(':'))?))
}

fn month_first(text: &str, near: Timestamp) -> Option<Timestamp> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = MONTHS.find(text.get(..3)?).filter(|at| at % 3 == 0)? / 3 + 1;
    let number = |range: std::ops::Range<usize>| text.get(range)?.trim().parse::<i8>().ok();
    let clock = [number(7..9)?, number(10..12)?, number(13..15)?];
    of_the_year(i8::try_from(month).ok()?, number(4..6)?, clock, near)
}

fn of_the_year(month: i8, day: i8, [hour, minute, second]: [i8; 3], near: Timestamp) -> Option<Timestamp> {
    let year = near.to_zoned(TimeZone::UTC).year();
    let in_year = |year: i16| in_utc(DateTime::new(year, month, day, hour, minute, second, 0).ok()?);
    let found = in_year(year)?;
    let tomorrow = near.checked_add(Span::new().hours(24)).ok()?;
    if found > tomorrow { in_year(year - 1) } else { Some(found) }
}

fn in_utc(time: DateTime) -> Option<Timestamp> {
    time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_its_time() {
        let near: Timestamp = "2026-07-22T12:00:00Z".parse().expect("a time");
        let check = |line: &str, time: &str, program: Option<&str>, text: &str| {
            let time = (!time.is_empty()).then(|| time.parse().expect("a time"));
            assert_eq!(take_apart(line, near), Line { time, program, text }, "{line}");
        };
        let ten = "2026-07-22T10:00:00Z";
        check("2026-07-22T10:00:00.000000000Z stderr F E0722 x", ten, None, "E0722 x");
        check("Jul 22 10:00:00 one kubelet[12]: E0722 failed", ten, Some("kubelet"), "E0722 failed");
        check("2026-07-22T19:00:00+0900 one containerd[1]: gone", ten, Some("containerd"), "gone");
        check("[  12.345678] Out of memory", "", Some("kernel"), "Out of memory");
        check("[Wed Jul 22 10:00:00 2026] Out of memory", ten, Some("kernel"), "Out of memory");
        let klog = "E0722 10:00:00.123456       1 a.go:1] \"failed\" err=\"x\"";
        check(klog, ten, None, klog);
        let etcd = "{\"level\":\"warn\",\"ts\":\"2026-07-22T10:00:00.000Z\",\"msg\":\"slow fdatasync\"}";
        check(etcd, ten, None, etcd);
        let containerd = "time=\"2026-07-22T10:00:00Z\" level=error msg=\"x\"";
        check(containerd, ten, None, containerd);
        check("Dec 31 23:59:59 one kubelet[1]: old", "2025-12-31T23:59:59Z", Some("kubelet"), "old");
        check("nothing of the kind: at all", "", None, "nothing of the kind: at all");
    }
}
