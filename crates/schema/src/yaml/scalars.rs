//! What a word of YAML 1.1 stands for, by the rules of upstream's parser.

use base64::Engine as _;
use serde_json::{Number, Value};

const PREFIX: &str = "tag:yaml.org,2002:";

/// A word with what says of which type it is.
#[derive(Debug)]
pub(super) struct Scalar {
    /// As it was written out; empty where it was not.
    pub(super) tag: String,
    pub(super) text: String,
    /// Whether it stood without quotes.
    pub(super) is_plain: bool,
}

impl Scalar {
    /// Whether it is the key of a merge.
    pub(super) fn is_merge(&self) -> bool {
        self.text == "<<" && (self.is_plain || self.tag.strip_prefix(PREFIX) == Some("merge"))
    }
}

/// The value of a word; the error is upstream's text.
pub(super) fn resolve(scalar: &Scalar) -> Result<Value, String> {
    let text = scalar.text.as_str();
    let tag = scalar.tag.strip_prefix(PREFIX).unwrap_or(&scalar.tag);
    let is_own = scalar.tag.is_empty() || scalar.tag.starts_with(PREFIX);
    match tag {
        "" if !scalar.is_plain => Ok(Value::from(text)),
        "" | "bool" | "float" | "int" | "null" | "timestamp" if is_own => of_tag(text, tag),
        "binary" if is_own => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text.replace(['\n', '\r'], ""));
            let bytes = bytes.map_err(|_| "!!binary value contains invalid base64 data".to_owned())?;
            Ok(Value::from(String::from_utf8_lossy(&bytes)))
        }
        _ => Ok(Value::from(text)),
    }
}

fn of_tag(text: &str, tag: &str) -> Result<Value, String> {
    let (kind, value) = plain(text);
    let fits = tag.is_empty() || tag == kind;
    match (fits, tag, kind) {
        (true, _, _) | (_, "float", "int") => number_of_json(value),
        // A date is text here as there.
        (_, "timestamp", "str") if is_date(text) => Ok(Value::from(text)),
        _ => Err(format!("cannot decode !!{kind} `{text}` as a !!{tag}")),
    }
}

/// Numbers that JSON does not have are refused.
fn number_of_json(value: Plain) -> Result<Value, String> {
    match value {
        Plain::Value(value) => Ok(value),
        Plain::Float(number) if number.is_nan() => Err("json: unsupported value: NaN".to_owned()),
        Plain::Float(number) if number.is_infinite() => {
            let sign = if number < 0.0 { '-' } else { '+' };
            Err(format!("json: unsupported value: {sign}Inf"))
        }
        // Upstream writes it out and reads it again: `1.0` and `1e3` are whole numbers then.
        Plain::Float(number) if number.fract() == 0.0 && number.abs() < 9e18 => Ok(Value::from(number as i64)),
        Plain::Float(number) => Ok(Number::from_f64(number).map_or(Value::Null, Value::Number)),
    }
}

enum Plain {
    Value(Value),
    Float(f64),
}

/// The type and value of a word without quotes.
fn plain(text: &str) -> (&'static str, Plain) {
    let value = |value: Value| Plain::Value(value);
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return ("bool", value(Value::Bool(true)));
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return ("bool", value(Value::Bool(false)));
        }
        "" | "~" | "null" | "Null" | "NULL" => return ("null", value(Value::Null)),
        ".nan" | ".NaN" | ".NAN" => return ("float", Plain::Float(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return ("float", Plain::Float(f64::INFINITY)),
        "-.inf" | "-.Inf" | "-.INF" => return ("float", Plain::Float(f64::NEG_INFINITY)),
        _ => {}
    }
    let number = match text.as_bytes().first() {
        Some(b'.') => float(text).map(|number| ("float", Plain::Float(number))),
        Some(b'+' | b'-' | b'0'..=b'9') if !is_date(text) => {
            let text = text.replace('_', "");
            integer(&text)
                .map(|number| ("int", value(number)))
                .or_else(|| float(&text).map(|number| ("float", Plain::Float(number))))
        }
        _ => None,
    };
    number.unwrap_or_else(|| ("str", value(Value::from(text))))
}

/// A whole number in any base: `12`, `0x1f`, `0o17`, `017`, `0b11`.
fn integer(text: &str) -> Option<Value> {
    let (is_negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_str() {
        own if own.starts_with("0x") => (16, &own[2..]),
        own if own.starts_with("0o") => (8, &own[2..]),
        own if own.starts_with("0b") => (2, &own[2..]),
        own if own.starts_with('0') && own.len() > 1 => (8, &own[1..]),
        own => (10, own),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let number = u64::from_str_radix(digits, base).ok()?;
    match is_negative {
        true => 0i64.checked_sub_unsigned(number).map(Value::from),
        // Such a number is only read as a signed one.
        false if text.starts_with('+') => i64::try_from(number).ok().map(Value::from),
        false => Some(Value::from(number)),
    }
}

/// A number with a point or an exponent, which no other signs may stand in.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let starts = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let is_number = unsigned.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    text.parse().ok().filter(|number: &f64| starts && is_number && number.is_finite())
}

/// Whether upstream takes a word for a date or a time, which stays text: `2001-12-14`, `2001-1-2T3:4:5Z`.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let digits = |part: Option<&str>, least: usize, most: usize| {
        part.is_some_and(|part| (least..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let (year, month) = (parts.next(), parts.next());
    let day = parts.next().map(|rest| rest.split(['T', 't', ' ']).next().unwrap_or_default());
    digits(year, 4, 4) && digits(month, 1, 2) && digits(day, 1, 2)
}
