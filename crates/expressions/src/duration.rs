//! Durations: `duration`, their parts, arithmetic and comparison.
//!
//! Invariant: a duration fits into 64 bits of nanoseconds, as upstream's do.

use std::cmp::Ordering;

use cel::common::traits::{Adder, Comparer, Subtractor, Zeroer};
use cel::common::types::{self, CelInt};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use crate::call::{self, Args, Outcome, arithmetic_type, failed, number, text_at, value_at};
use crate::timestamp::TimestampVal;

const SECOND: i64 = 1_000_000_000;

/// Units of texts with their nanoseconds; the longer of two that begin alike stands first.
const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

/// A duration as a value: nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationVal(pub(crate) i64);

arithmetic_type!(TYPE: DurationVal, "google.protobuf.Duration", |one, other| one == other);

impl DurationVal {
    /// Reads a text such as `1h30m` or `-1.5s`; the error is upstream's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("time: invalid duration {text:?}");
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if unsigned == "0" {
            return Ok(Self(0));
        }
        let (mut rest, mut total) = (unsigned, 0_i128);
        if rest.is_empty() {
            return Err(invalid());
        }
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (digits, after) = rest.split_at(end);
            let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
            if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
                return Err(invalid());
            }
            let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_end);
            if unit.is_empty() {
                return Err(format!("time: missing unit in duration {text:?}"));
            }
            let known = UNITS.iter().find(|(name, _)| *name == unit);
            let (_, nanoseconds) = known.ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
            total += part(whole, fraction, *nanoseconds).ok_or_else(invalid)?;
            rest = after;
        }
        i64::try_from(if negative { -total } else { total }).map(Self).map_err(|_| invalid())
    }

    /// As upstream writes it: seconds with as many decimals as there are.
    pub(crate) fn text(self) -> String {
        let (seconds, rest) =
            (self.0.unsigned_abs() / SECOND.unsigned_abs(), self.0.unsigned_abs() % SECOND.unsigned_abs());
        let sign = if self.0 < 0 { "-" } else { "" };
        match rest {
            0 => format!("{sign}{seconds}s"),
            rest => format!("{sign}{seconds}.{}s", format!("{rest:09}").trim_end_matches('0')),
        }
    }
}

/// Digits before and after the point of a number of units, in nanoseconds; absent where that is beyond all bounds.
fn part(whole: &str, fraction: &str, unit: i64) -> Option<i128> {
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
    // What lies below a nanosecond is cut off; 18 digits say all about an hour.
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<i128>().ok()? };
    Some(i128::from(whole) * i128::from(unit) + fraction * i128::from(unit) / scale)
}

fn overflow() -> ExecutionError {
    failed("duration", "duration overflow")
}

impl Adder for DurationVal {
    fn add<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Outcome<'b, 'v>
    where
        Self: 'v,
    {
        if let Some(at) = rhs.downcast_ref::<TimestampVal>() {
            return at.plus(self.0).map(CowVal::owned);
        }
        let other = rhs.downcast_ref::<Self>().ok_or_else(|| failed("_+_", "no such overload"))?;
        self.0.checked_add(other.0).map(|sum| CowVal::owned(Self(sum))).ok_or_else(overflow)
    }
}

impl Subtractor for DurationVal {
    fn sub<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Outcome<'b, 'v>
    where
        Self: 'v,
    {
        let other = rhs.downcast_ref::<Self>().ok_or_else(|| failed("_-_", "no such overload"))?;
        self.0.checked_sub(other.0).map(|rest| CowVal::owned(Self(rest))).ok_or_else(overflow)
    }
}

impl Comparer for DurationVal {
    fn compare(&self, rhs: &dyn Val) -> Result<Ordering, ExecutionError> {
        let other = rhs.downcast_ref::<Self>().ok_or_else(|| failed("compare", "no such overload"))?;
        Ok(self.0.cmp(&other.0))
    }
}

impl Zeroer for DurationVal {
    fn is_zero_value(&self) -> bool {
        self.0 == 0
    }
}

/// The type of durations.
pub(crate) fn duration_type() -> types::Type {
    TYPE.to_owned()
}

fn own(args: &[CowVal<'_, '_>]) -> Result<i64, ExecutionError> {
    value_at::<DurationVal>(args, 0, "duration").map(|own| own.0)
}

fn of_text<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let read = DurationVal::parse(text_at(&args, 0, "duration")?).map_err(|error| failed("duration", error))?;
    Ok(CowVal::owned(read))
}

fn of_int<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let number = value_at::<CelInt>(&args, 0, "duration")?;
    Ok(CowVal::owned(DurationVal(*number.inner())))
}

fn same<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(DurationVal(own(&args)?)))
}

fn string<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    call::text(DurationVal(own(&args)?).text())
}

fn nanoseconds<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    number(own(&args)?)
}

fn hours<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    number(own(&args)? / (3600 * SECOND))
}

fn minutes<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    number(own(&args)? / (60 * SECOND))
}

fn seconds<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    number(own(&args)? / SECOND)
}

fn milliseconds<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    number(own(&args)? / 1_000_000)
}

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let own = || vec![duration_type()];
    env.add_type(duration_type())?;
    env.add_overload("duration", "string_to_duration", vec![types::STRING_TYPE], of_text)?;
    env.add_overload("duration", "int64_to_duration", vec![types::INT_TYPE], of_int)?;
    env.add_overload("duration", "duration_to_duration", own(), same)?;
    env.add_overload("string", "duration_to_string", own(), string)?;
    env.add_overload("int", "duration_to_int64", own(), nanoseconds)?;
    let mut member =
        |name: &str, id: &str, function| env.add_member_overload(name, id, duration_type(), Vec::new(), function);
    member("getHours", "duration_to_hours", hours)?;
    member("getMinutes", "duration_to_minutes", minutes)?;
    member("getSeconds", "duration_to_seconds", seconds)?;
    member("getMilliseconds", "duration_to_milliseconds", milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let read = DurationVal::parse(text).map(DurationVal::text);
            assert_eq!(read.as_deref().map_err(String::as_str), expected, "{text}");
        };
        check("0", Ok("0s"));
        check("-0", Ok("0s"));
        check("1h30m", Ok("5400s"));
        check("-1.5s", Ok("-1.5s"));
        check("+1ms2us3ns", Ok("0.001002003s"));
        check(".5h", Ok("1800s"));
        check("1.s", Ok("1s"));
        check("0.3333333333333333333333h", Ok("1199.999999999s"));
        check("2562047h47m16.854775807s", Ok("9223372036.854775807s"));
        check("2562048h", Err("time: invalid duration \"2562048h\""));
        check("", Err("time: invalid duration \"\""));
        check("s", Err("time: invalid duration \"s\""));
        check(".s", Err("time: invalid duration \".s\""));
        check("1", Err("time: missing unit in duration \"1\""));
        check("1d", Err("time: unknown unit \"d\" in duration \"1d\""));
        check("1s x", Err("time: unknown unit \"s x\" in duration \"1s x\""));
    }
}
