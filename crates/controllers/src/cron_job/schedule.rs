//! Cron schedules: five fields, or `@daily` and its like, as upstream's parser reads them.
//!
//! Pure. A day matches if both day fields match, or, where neither is `*`, if one does.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

/// When to give up looking for a time that matches, such as 30 February.
const HORIZON_YEARS: i64 = 5;

/// A schedule: one bit for each value that a field matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
    /// `@every`: this many seconds after the last time instead.
    every: Option<i64>,
}

struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Field; 5] = [
    Field { name: "minute", least: 0, most: 59, names: &[] },
    Field { name: "hour", least: 0, most: 23, names: &[] },
    Field { name: "day of month", least: 1, most: 31, names: &[] },
    Field { name: "month", least: 1, most: 12, names: MONTHS },
    Field { name: "day of week", least: 0, most: 6, names: WEEKDAYS },
];

impl Schedule {
    /// Reads a schedule; an error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(interval) = text.strip_prefix("@every ") {
            let seconds = parse_interval(interval.trim()).ok_or_else(|| format!("failed to parse duration {text}"))?;
            return Ok(Self { every: Some(seconds.max(1)), ..Self::parse("* * * * *")? });
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other if other.starts_with('@') => return Err(format!("unrecognized descriptor: {other}")),
            other => other,
        };
        let parts: Vec<&str> = fields.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
        };
        Ok(Self {
            minutes: parse_field(minutes, &FIELDS[0])?,
            hours: parse_field(hours, &FIELDS[1])?,
            days: parse_field(days, &FIELDS[2])?,
            months: parse_field(months, &FIELDS[3])?,
            weekdays: parse_field(weekdays, &FIELDS[4])?,
            any_day: is_any(days),
            any_weekday: is_any(weekdays),
            every: None,
        })
    }

    /// The first time after `after`; `None` where there is none within years.
    pub(crate) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if let Some(every) = self.every {
            return Timestamp::from_second(after.as_second() + every).ok();
        }
        let local = zone.to_datetime(after);
        let start = local.with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(1.minute()).ok()?;
        let horizon = local.date().checked_add(HORIZON_YEARS.years()).ok()?;
        let mut date = start.date();
        let mut earliest = start.time();
        while date <= horizon {
            if self.matches_date(date) {
                for time in self.times(earliest) {
                    if let Some(found) = resolve(DateTime::from_parts(date, time), zone).filter(|found| *found > after)
                    {
                        return Some(found);
                    }
                }
            }
            date = date.tomorrow().ok()?;
            earliest = Time::midnight();
        }
        None
    }

    fn times(&self, earliest: Time) -> impl Iterator<Item = Time> + '_ {
        let all = (0..24i8).flat_map(|hour| (0..60i8).map(move |minute| (hour, minute)));
        all.filter(|(hour, minute)| self.hours >> hour & 1 == 1 && self.minutes >> minute & 1 == 1)
            .filter_map(|(hour, minute)| Time::new(hour, minute, 0, 0).ok())
            .filter(move |time| *time >= earliest)
    }

    fn matches_date(&self, date: Date) -> bool {
        let day = self.days >> date.day() & 1 == 1;
        let weekday = self.weekdays >> date.weekday().to_sunday_zero_offset() & 1 == 1;
        let matches = if self.any_day || self.any_weekday { day && weekday } else { day || weekday };
        self.months >> date.month() & 1 == 1 && matches
    }
}

/// A local time that a change of the clocks skips does not exist.
fn resolve(local: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => None,
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.compatible().ok(),
    }
}

fn is_any(field: &str) -> bool {
    field.split(',').any(|part| part == "*" || part == "?" || part.starts_with("*/"))
}

fn parse_field(text: &str, field: &Field) -> Result<u64, String> {
    text.split(',').try_fold(0, |bits, part| Ok(bits | parse_part(part, field)?))
}

fn parse_part(text: &str, field: &Field) -> Result<u64, String> {
    let (range, step) = match text.split_once('/') {
        Some((range, step)) => {
            let step = step.parse::<u32>().map_err(|_| format!("failed to parse int from {step}: {text}"))?;
            (range, Some(step))
        }
        None => (text, None),
    };
    let (first, last) = match (range, range.split_once('-')) {
        ("*" | "?", _) => (field.least, field.most),
        (_, Some((first, last))) => (parse_value(first, field)?, parse_value(last, field)?),
        (value, None) => {
            let value = parse_value(value, field)?;
            (value, if step.is_some() { field.most } else { value })
        }
    };
    // Some write Sunday as 7, which upstream refuses.
    if first < field.least {
        return Err(format!("beginning of range ({first}) below minimum ({}): {text}", field.least));
    }
    if last > field.most {
        return Err(format!("end of range ({last}) above maximum ({}): {text}", field.most));
    }
    if first > last {
        return Err(format!("beginning of range ({first}) beyond end of range ({last}): {text}"));
    }
    if step == Some(0) {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
    Ok((first..=last).step_by(step).fold(0, |bits, value| bits | 1 << value))
}

fn parse_value(text: &str, field: &Field) -> Result<u32, String> {
    let name = text.to_ascii_lowercase();
    if let Some(position) = field.names.iter().position(|known| *known == name) {
        return Ok(position as u32 + field.least);
    }
    text.parse().map_err(|_| format!("failed to parse int from {text}: the {} is no number", field.name))
}

/// Durations such as `1h30m`.
fn parse_interval(text: &str) -> Option<i64> {
    let mut seconds = 0;
    let mut number = String::new();
    for character in text.chars() {
        if character.is_ascii_digit() {
            number.push(character);
            continue;
        }
        let unit = match character {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds += number.parse::<i64>().ok()? * unit;
        number.clear();
    }
    (number.is_empty() && seconds > 0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_follows_the_fields() {
        let check = |schedule: &str, after: &str, expected: &str| {
            let next = Schedule::parse(schedule).unwrap().next(after.parse().unwrap(), &TimeZone::UTC);
            assert_eq!(next.map(|next| next.to_string()).as_deref(), Some(expected), "{schedule}");
        };
        check("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z");
        check("* * * * *", "2026-01-01T00:00:59.9Z", "2026-01-01T00:01:00Z");
        check("*/15 * * * *", "2026-01-01T00:46:00Z", "2026-01-01T01:00:00Z");
        check("5/20 * * * *", "2026-01-01T00:06:00Z", "2026-01-01T00:25:00Z");
        check("0 9-17 * * mon-fri", "2026-01-02T17:00:00Z", "2026-01-05T09:00:00Z");
        check("30 4 1,15 * *", "2026-01-01T05:00:00Z", "2026-01-15T04:30:00Z");
        check("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        check("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
        check("@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        check("@every 1h30m", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z");
        let never = Schedule::parse("0 0 30 2 *").unwrap();
        assert_eq!(never.next("2026-01-01T00:00:00Z".parse().unwrap(), &TimeZone::UTC), None);
    }

    #[test]
    fn zones_shift_the_clock() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let schedule = Schedule::parse("30 8 * * *").unwrap();
        let next = schedule.next("2026-01-01T06:30:00Z".parse().unwrap(), &zone).unwrap();
        assert_eq!(next.to_string(), "2026-01-02T06:30:00Z");
    }

    #[test]
    fn nonsense_is_refused() {
        for (text, expected) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: the minute is no number"),
            ("@often", "unrecognized descriptor: @often"),
        ] {
            assert_eq!(Schedule::parse(text), Err(expected.to_owned()));
        }
    }
}
