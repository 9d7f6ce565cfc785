//! `resource.Quantity`: exact amounts such as `100m`, `1.5Gi` and `2e3`.
//!
//! Held as an integer of nano-units, which covers every amount that upstream accepts to its own precision.

use std::fmt;
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;

/// An amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity {
    nanos: i128,
}

/// The text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct ParseQuantityError;

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self { nanos: 0 };

    /// Whole units.
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANO }
    }

    /// Thousandths.
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANO / 1000) }
    }

    /// Whole units, rounded up.
    pub fn units(self) -> i64 {
        clamp(ceiling(self.nanos, NANO))
    }

    /// Thousandths, rounded up.
    pub fn millis(self) -> i64 {
        clamp(ceiling(self.nanos, NANO / 1000))
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_add(other.nanos) }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_sub(other.nanos) }
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        let split = text
            .char_indices()
            .find(|(index, c)| !(c.is_ascii_digit() || *c == '.' || (*index == 0 && matches!(c, '+' | '-'))))
            .map_or(text.len(), |(index, _)| index);
        let (number, suffix) = text.split_at(split);
        let (numerator, denominator) = multiplier(suffix).ok_or(ParseQuantityError)?;
        let (negative, digits) = match number.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, number.strip_prefix('+').unwrap_or(number)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(ParseQuantityError);
        }
        let scaled = scale(whole, fraction, numerator, denominator)?;
        Ok(Self { nanos: if negative { -scaled } else { scaled } })
    }
}

impl fmt::Display for Quantity {
    /// The shortest exact decimal form: whole units, or thousandths with `m`, `u`, `n`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, suffix) in [(NANO, ""), (NANO / 1000, "m"), (1000, "u"), (1, "n")] {
            if self.nanos % unit == 0 {
                return write!(f, "{}{suffix}", self.nanos / unit);
            }
        }
        Ok(())
    }
}

fn multiplier(suffix: &str) -> Option<(i128, i128)> {
    let decimal = |power: u32| 10i128.checked_pow(power);
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, NANO),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (decimal(6)?, 1),
        "G" => (decimal(9)?, 1),
        "T" => (decimal(12)?, 1),
        "P" => (decimal(15)?, 1),
        "E" => (decimal(18)?, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = decimal(exponent.unsigned_abs().min(30))?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

/// `whole.fraction * numerator / denominator` in nano-units, rounded up. Too large amounts are capped.
fn scale(whole: &str, fraction: &str, numerator: i128, denominator: i128) -> Result<i128, ParseQuantityError> {
    let parse = |digits: &str| match digits.is_empty() {
        true => Ok(0i128),
        false => digits.parse::<i128>().map_err(|_| ParseQuantityError),
    };
    let fraction = &fraction[..fraction.len().min(18)];
    let places = 10i128.pow(u32::try_from(fraction.len()).map_err(|_| ParseQuantityError)?);
    let cap = i128::from(i64::MAX) * NANO;
    let whole = parse(whole)?.saturating_mul(numerator).saturating_mul(NANO);
    let part = parse(fraction)?.saturating_mul(numerator).saturating_mul(NANO);
    Ok(ceiling(whole, denominator).saturating_add(ceiling(part, places.saturating_mul(denominator))).min(cap))
}

fn ceiling(value: i128, unit: i128) -> i128 {
    value.div_euclid(unit) + i128::from(value.rem_euclid(unit) != 0)
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, units, millis, printed) in [
            ("0", 0, 0, "0"),
            ("1", 1, 1000, "1"),
            ("100m", 1, 100, "100m"),
            ("1.5", 2, 1500, "1500m"),
            ("0.1", 1, 100, "100m"),
            ("1Ki", 1024, 1_024_000, "1024"),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000, "1610612736"),
            ("2e3", 2000, 2_000_000, "2000"),
            ("1E", 1_000_000_000_000_000_000, i64::MAX, "1000000000000000000"),
            ("-1", -1, -1000, "-1"),
            ("1u", 1, 1, "1u"),
            (".5", 1, 500, "500m"),
        ] {
            let quantity: Quantity = text.parse().unwrap();
            assert_eq!((quantity.units(), quantity.millis()), (units, millis), "{text}");
            assert_eq!(quantity.to_string(), printed, "{text}");
        }
        for text in ["", ".", "m", "1x", "1.2.3", "--1", "1 Gi", "1e", "Ki"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }
}
