//! Points in time: `timestamp`, their parts in any time zone, arithmetic and comparison.
//!
//! Invariant: a point in time lies within the years 1 to 9999, and keeps the offset that it was written with for its text.

use std::cmp::Ordering;
use std::str::FromStr;

use cel::common::traits::{Adder, Comparer, Subtractor, Zeroer};
use cel::common::types::{self, CelInt};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::call::{self, Args, Outcome, arithmetic_type, failed, number, text_at, value_at};
use crate::duration::DurationVal;

const SECOND: i128 = 1_000_000_000;

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Seconds since 1970 of the first and the last second that there may be.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A point in time as a value.
#[derive(Debug, Clone, Copy)]
pub struct TimestampVal {
    /// Nanoseconds since 1970.
    at: i128,
    offset: Offset,
}

arithmetic_type!(TYPE: TimestampVal, "google.protobuf.Timestamp", |one, other| one.at == other.at);

impl TimestampVal {
    /// Reads RFC 3339, strictly; the error is upstream's text but for what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?}");
        let (local, offset) = split_offset(text).ok_or_else(wrong)?;
        let is_shaped = local.len() >= 19
            && local.bytes().enumerate().all(|(index, byte)| match index {
                4 | 7 => byte == b'-',
                10 => byte == b'T',
                13 | 16 => byte == b':',
                19 => byte == b'.' && local.len() > 20,
                _ => byte.is_ascii_digit(),
            });
        // The library's own bound of a fraction is nine digits.
        let local = &local[..local.len().min(29)];
        let local = Some(local).filter(|_| is_shaped).and_then(|local| DateTime::from_str(local).ok());
        let local = local.filter(|local| local.year() > 0).ok_or_else(wrong)?;
        let since = local.duration_since(EPOCH).as_nanos() - i128::from(offset.seconds()) * SECOND;
        Self::checked(since, offset).ok_or_else(|| "timestamp overflow".to_owned())
    }

    /// Reads a day (`2006-01-02`), as its first moment.
    pub fn parse_date(text: &str) -> Option<Self> {
        Self::parse(&format!("{text}T00:00:00Z")).ok()
    }

    /// The point that many nanoseconds later.
    pub(crate) fn plus(&self, nanoseconds: i64) -> Result<Self, ExecutionError> {
        Self::checked(self.at + i128::from(nanoseconds), self.offset).ok_or_else(overflow)
    }

    fn checked(at: i128, offset: Offset) -> Option<Self> {
        let second = i64::try_from(at.div_euclid(SECOND)).ok()?;
        SECONDS.contains(&second).then_some(Self { at, offset })
    }

    /// What a clock shows that is that far ahead of UTC.
    fn local(&self, offset: Offset) -> Option<DateTime> {
        let at = self.at + i128::from(offset.seconds()) * SECOND;
        EPOCH.checked_add(SignedDuration::try_from_nanos_i128(at)?).ok()
    }

    /// The same text for the same point.
    pub(crate) fn identity(&self) -> String {
        self.at.to_string()
    }

    /// As RFC 3339 writes it, with as many decimals as there are.
    pub(crate) fn text(&self) -> String {
        let (local, offset) = match self.local(self.offset) {
            Some(local) => (local, self.offset),
            None => (self.local(Offset::UTC).unwrap_or(EPOCH), Offset::UTC),
        };
        let mut text = local.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        if local.subsec_nanosecond() != 0 {
            text.push('.');
            text.push_str(format!("{:09}", local.subsec_nanosecond()).trim_end_matches('0'));
        }
        let minutes = offset.seconds() / 60;
        match minutes {
            0 => text.push('Z'),
            minutes => {
                let sign = if minutes < 0 { '-' } else { '+' };
                text.push_str(&format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60));
            }
        }
        text
    }
}

/// What stands before the offset of a text, and the offset.
fn split_offset(text: &str) -> Option<(&str, Offset)> {
    if let Some(local) = text.strip_suffix('Z') {
        return Some((local, Offset::UTC));
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let sign = match offset.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = offset[1..].split_once(':')?;
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<i32>().ok())?;
    let (hours, minutes) = (digits(hours)?, digits(minutes).filter(|minutes| *minutes < 60)?);
    Some((local, Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok().filter(|_| hours <= 24)?))
}

fn overflow() -> ExecutionError {
    failed("timestamp", "timestamp overflow")
}

impl Adder for TimestampVal {
    fn add<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Outcome<'b, 'v>
    where
        Self: 'v,
    {
        let duration = rhs.downcast_ref::<DurationVal>().ok_or_else(|| failed("_+_", "no such overload"))?;
        self.plus(duration.0).map(CowVal::owned)
    }
}

impl Subtractor for TimestampVal {
    fn sub<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Outcome<'b, 'v>
    where
        Self: 'v,
    {
        if let Some(other) = rhs.downcast_ref::<Self>() {
            let nanoseconds = i64::try_from(self.at - other.at);
            let between = nanoseconds.map_err(|_| failed("_-_", "integer overflow"))?;
            return Ok(CowVal::owned(DurationVal(between)));
        }
        let duration = rhs.downcast_ref::<DurationVal>().ok_or_else(|| failed("_-_", "no such overload"))?;
        self.plus(duration.0.checked_neg().ok_or_else(overflow)?).map(CowVal::owned)
    }
}

impl Comparer for TimestampVal {
    fn compare(&self, rhs: &dyn Val) -> Result<Ordering, ExecutionError> {
        let other = rhs.downcast_ref::<Self>().ok_or_else(|| failed("compare", "no such overload"))?;
        Ok(self.at.cmp(&other.at))
    }
}

impl Zeroer for TimestampVal {
    fn is_zero_value(&self) -> bool {
        self.at == i128::from(*SECONDS.start()) * SECOND
    }
}

/// The type of points in time.
pub(crate) fn timestamp_type() -> types::Type {
    TYPE.to_owned()
}

fn own<'a>(args: &'a [CowVal<'_, '_>]) -> Result<&'a TimestampVal, ExecutionError> {
    value_at::<TimestampVal>(args, 0, "timestamp")
}

fn of_text<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let read = TimestampVal::parse(text_at(&args, 0, "timestamp")?).map_err(|error| failed("timestamp", error))?;
    Ok(CowVal::owned(read))
}

fn of_int<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let seconds = *value_at::<CelInt>(&args, 0, "timestamp")?.inner();
    let at = TimestampVal::checked(i128::from(seconds) * SECOND, Offset::UTC);
    at.map(CowVal::owned).ok_or_else(overflow)
}

fn same<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    own(&args).copied().map(CowVal::owned)
}

fn string<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    call::text(own(&args)?.text())
}

fn seconds_since<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let seconds = own(&args)?.at.div_euclid(SECOND);
    number(i64::try_from(seconds).map_err(|_| overflow())?)
}

/// The time on the clock of the zone that is named, or of UTC.
fn clock(args: &[CowVal<'_, '_>]) -> Result<DateTime, ExecutionError> {
    let own = own(args)?;
    let zone = if args.len() > 1 { zone(text_at(args, 1, "timestamp")?)? } else { TimeZone::UTC };
    // The library's own points in time end some hours earlier; no zone changes its offset there.
    let at = own.at.clamp(Timestamp::MIN.as_nanosecond(), Timestamp::MAX.as_nanosecond());
    let at = Timestamp::from_nanosecond(at).map_err(|_| overflow())?;
    own.local(zone.to_offset(at)).ok_or_else(overflow)
}

/// A zone by its name, or by an offset such as `-07:00` or `2:30`.
fn zone(text: &str) -> Result<TimeZone, ExecutionError> {
    let wrong = |why: String| failed("timestamp", why);
    let Some((hours, minutes)) = text.split_once(':') else {
        return match text {
            "" | "UTC" => Ok(TimeZone::UTC),
            name => TimeZone::get(name).map_err(|_| wrong(format!("unknown time zone {name}"))),
        };
    };
    let number = |part: &str| {
        let error = || wrong(format!("strconv.Atoi: parsing {part:?}: invalid syntax"));
        part.parse::<i32>().map_err(|_| error())
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minutes = if text.starts_with('-') { minutes.checked_neg() } else { Some(minutes) };
    let seconds = hours.checked_mul(3600).zip(minutes.and_then(|minutes| minutes.checked_mul(60)));
    let offset = seconds.and_then(|(hours, minutes)| Offset::from_seconds(hours.checked_add(minutes)?).ok());
    offset.map(TimeZone::fixed).ok_or_else(|| wrong(format!("unknown time zone {text}")))
}

/// Declares functions that give a part of the time on a clock, with and without a zone.
macro_rules! parts {
    ($env:ident, $($name:literal, $id:literal: |$at:ident| $part:expr;)*) => {$({
        fn part<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
            let $at = clock(&args)?;
            number(i64::from($part))
        }
        $env.add_member_overload($name, $id, timestamp_type(), Vec::new(), part)?;
        $env.add_member_overload($name, concat!($id, "_with_tz"), timestamp_type(), vec![types::STRING_TYPE], part)?;
    })*};
}

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let own = || vec![timestamp_type()];
    env.add_type(timestamp_type())?;
    env.add_overload("timestamp", "string_to_timestamp", vec![types::STRING_TYPE], of_text)?;
    env.add_overload("timestamp", "int64_to_timestamp", vec![types::INT_TYPE], of_int)?;
    env.add_overload("timestamp", "timestamp_to_timestamp", own(), same)?;
    env.add_overload("string", "timestamp_to_string", own(), string)?;
    env.add_overload("int", "timestamp_to_int64", own(), seconds_since)?;
    parts! {
        env,
        "getFullYear", "timestamp_to_year": |at| at.year();
        "getMonth", "timestamp_to_month": |at| at.month() - 1;
        "getDate", "timestamp_to_day_of_month_1_based": |at| at.day();
        "getDayOfMonth", "timestamp_to_day_of_month": |at| at.day() - 1;
        "getDayOfWeek", "timestamp_to_day_of_week": |at| at.weekday().to_sunday_zero_offset();
        "getDayOfYear", "timestamp_to_day_of_year": |at| at.day_of_year() - 1;
        "getHours", "timestamp_to_hours": |at| at.hour();
        "getMinutes", "timestamp_to_minutes": |at| at.minute();
        "getSeconds", "timestamp_to_seconds": |at| at.second();
        "getMilliseconds", "timestamp_to_milliseconds": |at| at.millisecond();
    }
    Ok(())
}
