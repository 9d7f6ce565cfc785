//! From a JSON object to the message of its type.
//!
//! Not the envelope. Only what the object says is written: absent and zero are the same to whoever reads it. The invariant:
//! fields stand in the order of their numbers, so that equal objects make equal bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kedge_meta::parse_time;
use serde_json::{Map, Value};

use super::wire::Wire;
use super::{EncodeError, SCHEMA_PROPS};
use crate::facts::{Content, FieldType, Slot, Type, type_by_name};

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

/// A value does not fit; the field's name is added where it is known.
struct Misfit;

impl Writer {
    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    pub(super) fn key(&mut self, number: u16, wire: Wire) {
        self.varint(u64::from(number) << 3 | wire as u64);
    }

    fn number(&mut self, number: u16, value: u64) {
        self.key(number, Wire::Varint);
        self.varint(value);
    }

    pub(super) fn bytes(&mut self, number: u16, bytes: &[u8]) {
        self.key(number, Wire::Bytes);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A message within this one. Its length is known afterwards; most lengths take the one byte that is kept free.
    pub(super) fn message<E>(&mut self, number: u16, write: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        self.key(number, Wire::Bytes);
        let start = self.0.len();
        self.0.push(0);
        write(self)?;
        let mut length = Writer::default();
        length.varint((self.0.len() - start - 1) as u64);
        self.0.splice(start..=start, length.0);
        Ok(())
    }
}

/// Writes the fields of an object.
pub(super) fn write_object(
    out: &mut Writer,
    ty: &'static Type,
    slots: &'static [Slot],
    value: &Value,
) -> Result<(), EncodeError> {
    let object = value.as_object().ok_or_else(|| EncodeError::Mismatch { field: ty.short_name().to_owned() })?;
    write_slots(out, ty, slots, object)
}

fn write_slots(
    out: &mut Writer,
    ty: &'static Type,
    slots: &'static [Slot],
    object: &Map<String, Value>,
) -> Result<(), EncodeError> {
    for slot in slots {
        match slot.content {
            Content::Inline(inner) if has_any(object, ty, inner) => {
                out.message(slot.number, |out| write_slots(out, ty, inner, object))?;
            }
            Content::Inline(_) => {}
            Content::Field { index, wrapped, .. } => {
                let field = &ty.fields[usize::from(index)];
                let Some(value) = object.get(field.name).filter(|value| !value.is_null()) else { continue };
                let written = match (&field.ty, value) {
                    (FieldType::List(_), Value::Array(_)) if wrapped => write_value(out, slot.number, &field.ty, value),
                    (FieldType::List(item), Value::Array(items)) => {
                        items.iter().try_for_each(|value| write_value(out, slot.number, item, value))
                    }
                    (FieldType::List(_), _) => Err(Misfit.into()),
                    (ty, value) => write_value(out, slot.number, ty, value),
                };
                written.map_err(|problem| problem.within(field.name))?;
            }
        }
    }
    Ok(())
}

fn has_any(object: &Map<String, Value>, ty: &'static Type, slots: &[Slot]) -> bool {
    slots.iter().any(|slot| match slot.content {
        Content::Inline(inner) => has_any(object, ty, inner),
        Content::Field { index, .. } => {
            object.get(ty.fields[usize::from(index)].name).is_some_and(|value| !value.is_null())
        }
    })
}

/// What went wrong with a value: itself, or something below it that has a name already.
enum Problem {
    Here,
    Below(EncodeError),
}

impl Problem {
    fn within(self, field: &str) -> EncodeError {
        match self {
            Problem::Here => EncodeError::Mismatch { field: field.to_owned() },
            Problem::Below(EncodeError::Mismatch { field: below }) => {
                EncodeError::Mismatch { field: format!("{field}.{below}") }
            }
            Problem::Below(other) => other,
        }
    }
}

impl From<Misfit> for Problem {
    fn from(_: Misfit) -> Self {
        Problem::Here
    }
}

impl From<EncodeError> for Problem {
    fn from(error: EncodeError) -> Self {
        Problem::Below(error)
    }
}

/// One value: of a field, a list item, or a map's value. Null is the zero value.
fn write_value(out: &mut Writer, number: u16, ty: &'static FieldType, value: &Value) -> Result<(), Problem> {
    match ty {
        FieldType::Boolean => out.number(number, u64::from(value.as_bool().ok_or(Misfit)?)),
        FieldType::Int32 | FieldType::Int64 => out.number(number, integer(value)?.cast_unsigned()),
        FieldType::Double => {
            out.key(number, Wire::Fixed64);
            out.0.extend(value.as_f64().ok_or(Misfit)?.to_le_bytes());
        }
        FieldType::String => out.bytes(number, text(value)?.as_bytes()),
        FieldType::Bytes => out.bytes(number, &STANDARD.decode(text(value)?).map_err(|_| Misfit)?),
        FieldType::Time | FieldType::MicroTime => out.message(number, |out| write_time(out, value))?,
        FieldType::Quantity => out.message(number, |out| write_quantity(out, value))?,
        FieldType::IntOrString => out.message(number, |out| write_int_or_string(out, value))?,
        FieldType::Json(definition) => out.message(number, |out| write_json(out, definition, value))?,
        FieldType::Object(ty) => out.message(number, |out| {
            let slots = ty.message.ok_or(Misfit)?;
            match value {
                Value::Null => Ok(()),
                Value::Object(object) => write_slots(out, ty, slots, object).map_err(Problem::from),
                _ => Err(Problem::Here),
            }
        })?,
        FieldType::List(item) => out.message(number, |out| {
            let items = value.as_array().ok_or(Misfit)?;
            items.iter().try_for_each(|value| write_value(out, 1, item, value))
        })?,
        FieldType::Map(values) => {
            for (key, value) in value.as_object().ok_or(Misfit)? {
                out.message(number, |out| {
                    out.bytes(1, key.as_bytes());
                    write_value(out, 2, values, value)
                })?;
            }
        }
    }
    Ok(())
}

fn text(value: &Value) -> Result<&str, Misfit> {
    if value.is_null() { Ok("") } else { value.as_str().ok_or(Misfit) }
}

fn integer(value: &Value) -> Result<i64, Misfit> {
    if value.is_null() { Ok(0) } else { value.as_i64().ok_or(Misfit) }
}

fn write_time(out: &mut Writer, value: &Value) -> Result<(), Misfit> {
    if value.is_null() {
        return Ok(());
    }
    let time = parse_time(text(value)?).ok_or(Misfit)?;
    // jiff counts towards zero before 1970; protobuf's nanoseconds never are negative.
    let (mut seconds, mut nanos) = (time.as_second(), i64::from(time.subsec_nanosecond()));
    if nanos < 0 {
        (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
    }
    out.number(1, seconds.cast_unsigned());
    out.number(2, nanos.cast_unsigned());
    Ok(())
}

fn write_quantity(out: &mut Writer, value: &Value) -> Result<(), Misfit> {
    match value {
        Value::Number(amount) => out.bytes(1, amount.to_string().as_bytes()),
        value => out.bytes(1, text(value)?.as_bytes()),
    }
    Ok(())
}

fn write_int_or_string(out: &mut Writer, value: &Value) -> Result<(), Misfit> {
    let is_text = value.is_string();
    out.number(1, u64::from(is_text));
    out.number(2, if is_text { 0 } else { integer(value)?.cast_unsigned() });
    out.bytes(3, value.as_str().unwrap_or_default().as_bytes());
    Ok(())
}

fn write_json(out: &mut Writer, definition: &str, value: &Value) -> Result<(), Problem> {
    let kind = definition.rsplit('.').next().unwrap_or(definition);
    match (kind, value) {
        (_, Value::Null) => {}
        ("JSONSchemaPropsOrArray", Value::Array(items)) => {
            items.iter().try_for_each(|item| write_schema(out, 2, item))?;
        }
        ("JSONSchemaPropsOrStringArray", Value::Array(items)) => {
            for item in items {
                out.bytes(2, text(item)?.as_bytes());
            }
        }
        ("JSONSchemaPropsOrBool", Value::Bool(allows)) => out.number(1, u64::from(*allows)),
        ("JSONSchemaPropsOrBool", schema) => {
            out.number(1, 1);
            write_schema(out, 2, schema)?;
        }
        ("JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray", schema) => write_schema(out, 1, schema)?,
        _ => out.bytes(1, value.to_string().as_bytes()),
    }
    Ok(())
}

fn write_schema(out: &mut Writer, number: u16, schema: &Value) -> Result<(), Problem> {
    let ty = type_by_name(SCHEMA_PROPS).ok_or(Misfit)?;
    let slots = ty.message.ok_or(Misfit)?;
    out.message(number, |out| write_object(out, ty, slots, schema).map_err(Problem::from))
}
