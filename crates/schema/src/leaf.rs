//! Single values: whether one fits its type, and how upstream writes it back.
//!
//! Structure (objects, lists, null) is not its matter.

use kedge_meta::{format_micro_time, format_time, parse_time};
use serde_json::Value;

use crate::problems::{Path, Problems, quote};
use crate::quantity;
use crate::schema::{Schema, Shape};

/// How Go's errors call a value; numbers for integer fields carry their text.
pub(crate) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Checks a scalar `value` (not null, not a container) and makes it canonical. `text` is the source of a number.
pub(crate) fn check(
    value: &mut Value,
    text: Option<&str>,
    schema: Schema<'_>,
    path: &Path<'_>,
    problems: &mut Problems,
) {
    let fits = match (schema.shape(), &*value) {
        (Shape::Untyped, Value::Number(_)) => {
            shorten(value);
            true
        }
        (Shape::Json | Shape::Untyped, _)
        | (Shape::Boolean, Value::Bool(_))
        | (Shape::String | Shape::IntOrString, Value::String(_))
        | (Shape::Double, Value::Number(_)) => true,
        (Shape::Int64, Value::Number(number)) if number.is_i64() => true,
        (Shape::Int32 | Shape::IntOrString, Value::Number(number)) => {
            number.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
        }
        (Shape::Time | Shape::MicroTime | Shape::Bytes, Value::String(_)) | (Shape::Quantity, _) => {
            return canonicalize(value, text, schema, problems);
        }
        _ => false,
    };
    if !fits {
        mismatch(value, text, schema, path, problems);
    }
}

fn mismatch(value: &Value, text: Option<&str>, schema: Schema<'_>, path: &Path<'_>, problems: &mut Problems) {
    let numeric = matches!(schema.shape(), Shape::Int32 | Shape::Int64 | Shape::IntOrString);
    match (value, text) {
        (Value::Number(_), Some(text)) if numeric => problems.mismatch(path, &format!("number {text}"), schema),
        (Value::Number(number), None) if numeric => problems.mismatch(path, &format!("number {number}"), schema),
        _ => problems.mismatch(path, go_kind(value), schema),
    }
}

/// Whole floating-point numbers are written without a point, as Go does.
pub(crate) fn shorten(value: &mut Value) {
    #[allow(clippy::cast_possible_truncation)]
    if let Some(float) = value.as_f64().filter(|float| value.is_f64() && float.fract() == 0.0 && float.abs() < 1e15) {
        *value = Value::from(float as i64);
    }
}

fn canonicalize(value: &mut Value, text: Option<&str>, schema: Schema<'_>, problems: &mut Problems) {
    let canonical = match (schema.shape(), &*value) {
        (Shape::Quantity, Value::String(text)) => quantity_text(text.trim())
            .map(|new| new.or_else(|| (text.trim() != text.as_str()).then(|| text.trim().to_owned()))),
        (Shape::Quantity, other) => {
            let source = text.map_or_else(|| other.to_string(), str::to_owned);
            quantity_text(&source).map(|new| Some(new.unwrap_or(source)))
        }
        (Shape::Bytes, Value::String(text)) => base64_text(text),
        (Shape::MicroTime, Value::String(text)) => time_text(text, true),
        (_, Value::String(text)) => time_text(text, false),
        _ => Ok(None),
    };
    match canonical {
        Ok(None) => {}
        Ok(Some(text)) => *value = Value::String(text),
        Err(text) => problems.fatal(text),
    }
}

fn quantity_text(text: &str) -> Result<Option<String>, String> {
    quantity::canonical(text).map_err(str::to_owned)
}

fn time_text(text: &str, micro: bool) -> Result<Option<String>, String> {
    let is_canonical_shape = if micro { text.len() == 27 } else { text.len() == 20 };
    let parsed = if text.contains('T') { parse_time(text) } else { None };
    let Some(time) = parsed else {
        let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
        return Err(format!("parsing time {0} as \"{layout}\": cannot parse {0} as \"2006\"", quote(text)));
    };
    if is_canonical_shape && text.ends_with('Z') {
        return Ok(None);
    }
    Ok(Some(if micro { format_micro_time(time) } else { format_time(time) }))
}

/// Standard base64 with padding; line breaks are ignored, as Go does.
fn base64_text(text: &str) -> Result<Option<String>, String> {
    let mut clean = String::new();
    let source = if text.contains(['\n', '\r']) {
        clean.extend(text.chars().filter(|c| !matches!(c, '\n' | '\r')));
        clean.as_str()
    } else {
        text
    };
    let padding = source.bytes().rev().take(2).take_while(|byte| *byte == b'=').count();
    let body = &source.as_bytes()[..source.len() - padding];
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    if let Some(bad) = body.iter().position(|byte| !is_digit(byte)) {
        return Err(format!("illegal base64 data at input byte {bad}"));
    }
    if !source.len().is_multiple_of(4) {
        return Err(format!("illegal base64 data at input byte {}", source.len() / 4 * 4));
    }
    Ok((!clean.is_empty()).then_some(clean))
}

/// What Go's decoder makes of `null` inside a list or map.
pub(crate) fn zero(schema: Schema<'_>) -> Value {
    match schema.shape() {
        Shape::Boolean => Value::Bool(false),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString | Shape::Double => Value::from(0),
        Shape::String => Value::from(""),
        Shape::Quantity => Value::from("0"),
        Shape::Struct(_) => Value::Object(serde_json::Map::new()),
        _ => Value::Null,
    }
}
