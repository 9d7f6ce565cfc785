//! The canonical text of a quantity, as upstream writes it back: `0.5` is `500m`, `1024Mi` is `1Gi`.
//!
//! Only texts: comparing and adding quantities is `kedge_meta::Quantity`. The invariant: a text that upstream keeps as it is
//! comes back unchanged.

const NANO: i128 = 1_000_000_000;
const FORMAT: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const SUFFIX: &str = "unable to parse quantity's suffix";
const NUMBER: &str = "unable to parse numeric part of quantity";
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Decimal,
    Exponent,
    Binary,
}

/// The canonical text; `None` where the text is canonical already.
pub(crate) fn canonical(text: &str) -> Result<Option<String>, &'static str> {
    if text == "0" {
        return Ok(None);
    }
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let split = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(split);
    if number.is_empty() || !suffix_is_well_formed(suffix) {
        return Err(FORMAT);
    }
    let (format, exponent) = interpret(suffix).ok_or(SUFFIX)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(if fraction.contains('.') { FORMAT } else { NUMBER });
    }
    if is_canonical(format, exponent, whole, fraction) {
        return Ok(None);
    }
    let nanos = nanos_of(format, exponent, whole, fraction).ok_or(NUMBER)?;
    Ok(Some(write(format, if negative { -nanos } else { nanos })))
}

fn suffix_is_well_formed(suffix: &str) -> bool {
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let digits = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The format and the power of ten, or of 1024 for binary ones.
fn interpret(suffix: &str) -> Option<(Format, i32)> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Format::Decimal, *exponent));
    }
    if let Some(index) = BINARY.iter().position(|name| *name == suffix) {
        return Some((Format::Binary, i32::try_from(index).ok()?));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((Format::Exponent, exponent))
}

/// Upstream's shortcut: such texts are kept.
fn is_canonical(format: Format, exponent: i32, whole: &str, fraction: &str) -> bool {
    let whole = whole.trim_start_matches('0');
    let shifted = format!("{}{fraction}", if whole.is_empty() { "0" } else { whole });
    let digits = i32::try_from(shifted.len()).unwrap_or(i32::MAX);
    if format == Format::Binary {
        let fits = fraction.is_empty() && digits <= 14 - exponent * 3;
        return fits && shifted.parse::<i64>().is_ok_and(|value| value & 7 != 0);
    }
    let scale = exponent.saturating_sub(i32::try_from(fraction.len()).unwrap_or(i32::MAX));
    digits <= 18 && scale >= -9 && scale % 3 == 0 && !shifted.ends_with("000") && !shifted.starts_with('0')
}

fn nanos_of(format: Format, exponent: i32, whole: &str, fraction: &str) -> Option<i128> {
    let fraction = &fraction[..fraction.len().min(18)];
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = u32::try_from(fraction.len()).ok()?;
    let (numerator, denominator) = match format {
        Format::Binary => (1024i128.checked_pow(u32::try_from(exponent).ok()?)?, 10i128.pow(places)),
        _ => {
            let power = exponent - i32::try_from(places).ok()?;
            let scale = 10i128.checked_pow(power.unsigned_abs())?;
            if power < 0 { (1, scale) } else { (scale, 1) }
        }
    };
    let scaled = digits.checked_mul(numerator)?.checked_mul(NANO)?;
    Some(scaled / denominator + i128::from(scaled % denominator != 0))
}

fn write(format: Format, nanos: i128) -> String {
    let binary = format == Format::Binary && nanos.abs() >= 1024 * NANO;
    if binary {
        let mut units = nanos / NANO + i128::from(nanos % NANO != 0);
        let mut index = 0;
        while units != 0 && units % 1024 == 0 && index + 1 < BINARY.len() {
            units /= 1024;
            index += 1;
        }
        return format!("{units}{}", BINARY[index]);
    }
    let mut mantissa = nanos;
    let mut index = 0;
    while mantissa != 0 && mantissa % 1000 == 0 && index + 1 < DECIMAL.len() {
        mantissa /= 1000;
        index += 1;
    }
    let (suffix, exponent) = if mantissa == 0 { ("", 0) } else { DECIMAL[index] };
    match format {
        Format::Exponent if exponent != 0 => format!("{mantissa}e{exponent}"),
        _ => format!("{mantissa}{suffix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_texts_are_upstreams() {
        let check = |text: &str, expected: &str| {
            let canonical = canonical(text).unwrap().unwrap_or_else(|| text.to_owned());
            assert_eq!(canonical, expected, "{text}");
        };
        check("0", "0");
        check("1", "1");
        check("100m", "100m");
        check("0.5", "500m");
        check("1000m", "1");
        check("1.5", "1500m");
        check("1000", "1k");
        check("1024Mi", "1Gi");
        check("1000Mi", "1000Mi");
        check("100Mi", "100Mi");
        check("64Mi", "64Mi");
        check("1.5Gi", "1536Mi");
        check("512Ki", "512Ki");
        check("1e3", "1e3");
        check("2000e3", "2e6");
        check("0.1n", "1n");
        check("1.500", "1.500");
        check("007", "007");
        check("-5m", "-5m");
        check("1500Mi", "1500Mi");
        check("0Gi", "0");
        check("110", "110");
        check("00", "0");
        check("123456789", "123456789");
    }

    #[test]
    fn errors_are_upstreams() {
        for (text, error) in
            [("", FORMAT), ("abc", FORMAT), ("1x", FORMAT), ("1KK", SUFFIX), ("1 ", FORMAT), (".", NUMBER)]
        {
            assert_eq!(canonical(text), Err(error), "{text:?}");
        }
    }
}
