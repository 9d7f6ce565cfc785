//! From a message to the JSON object that it says.
//!
//! Not the envelope. The invariant: values come out canonical, as the JSON decoder gives them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kedge_meta::{format_micro_time, format_time};
use serde_json::{Map, Value};

use super::wire::{Reader, Wire, WireError};
use super::{SCHEMA_PROPS, is_protobuf, type_of};
use crate::decode::{BodyFormat, decode_untyped};
use crate::facts::{Content, Field, FieldType, Slot, Type, type_by_name};
use crate::lexer::MAX_DEPTH;
use crate::{leaf, quantity};

/// Seconds of the years that RFC 3339 can say.
const TIMES: std::ops::Range<i64> = -62_135_596_800..253_402_300_800;

/// Reads the message of a type into `object`.
pub(super) fn read_message(
    bytes: &[u8],
    ty: &'static Type,
    slots: &'static [Slot],
    object: &mut Map<String, Value>,
) -> Result<(), WireError> {
    Decoder { depth: 0 }.message(bytes, ty, slots, object)
}

struct Decoder {
    depth: usize,
}

impl Decoder {
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, WireError>) -> Result<T, WireError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(WireError::new("exceeded max depth"));
        }
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn message(
        &mut self,
        bytes: &[u8],
        ty: &'static Type,
        slots: &'static [Slot],
        object: &mut Map<String, Value>,
    ) -> Result<(), WireError> {
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.key()? {
            let Ok(found) = slots.binary_search_by_key(&number, |slot| u64::from(slot.number)) else {
                reader.skip(wire)?;
                continue;
            };
            match slots[found].content {
                Content::Inline(inner) => {
                    let bytes = reader.bytes(wire, ty.short_name())?;
                    self.nested(|decoder| decoder.message(bytes, ty, inner, object))?;
                }
                Content::Field { index, omitempty, wrapped } => {
                    let field = &ty.fields[usize::from(index)];
                    self.field(&mut reader, wire, field, wrapped, object)?;
                    if is_unset(object.get(field.name), omitempty, field) {
                        object.remove(field.name);
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads one occurrence of a field. Occurrences of lists, maps and structures add up; of others, the last one counts.
    fn field(
        &mut self,
        reader: &mut Reader<'_>,
        wire: Wire,
        field: &'static Field,
        wrapped: bool,
        object: &mut Map<String, Value>,
    ) -> Result<(), WireError> {
        let name = field.name;
        match &field.ty {
            FieldType::List(_) if wrapped => {
                let items = self.wrapped_list(reader.bytes(wire, name)?)?;
                list_in(object, name).extend(items);
            }
            FieldType::List(item) if wire == Wire::Bytes && is_number(item) => {
                let mut packed = Reader::new(reader.bytes(wire, name)?);
                let list = list_in(object, name);
                while !packed.is_empty() {
                    list.push(self.value(&mut packed, Wire::Varint, item, name)?);
                }
            }
            FieldType::List(item) => {
                let value = self.value(reader, wire, item, name)?;
                list_in(object, name).push(value);
            }
            FieldType::Map(values) => {
                let (key, value) = self.entry(reader.bytes(wire, name)?, values, name)?;
                let entries = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
                entries.as_object_mut().expect("maps are read as objects").insert(key, value);
            }
            FieldType::Object(ty) => {
                let bytes = reader.bytes(wire, name)?;
                let inner = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
                let inner = inner.as_object_mut().expect("structures are read as objects");
                self.structure(bytes, ty, inner)?;
            }
            ty => {
                let value = self.value(reader, wire, ty, name)?;
                object.insert(name.to_owned(), value);
            }
        }
        Ok(())
    }

    fn structure(&mut self, bytes: &[u8], ty: &'static Type, object: &mut Map<String, Value>) -> Result<(), WireError> {
        let slots = ty.message.ok_or_else(|| WireError(format!("{} has no message", ty.go_name())))?;
        self.nested(|decoder| decoder.message(bytes, ty, slots, object))
    }

    /// `Verbs` and `ExtraValue`: a message whose field 1 are the texts of a list.
    fn wrapped_list(&mut self, bytes: &[u8]) -> Result<Vec<Value>, WireError> {
        let mut items = Vec::new();
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.key()? {
            match number {
                1 => items.push(reader.text(wire, "items")?.into()),
                _ => reader.skip(wire)?,
            }
        }
        Ok(items)
    }

    fn entry(&mut self, bytes: &[u8], values: &'static FieldType, name: &str) -> Result<(String, Value), WireError> {
        let mut key = String::new();
        let mut value = None;
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.key()? {
            match number {
                1 => key = reader.text(wire, name)?,
                2 => value = Some(self.value(&mut reader, wire, values, name)?),
                _ => reader.skip(wire)?,
            }
        }
        Ok((key, value.unwrap_or_else(|| zero(values))))
    }

    /// One value that is read as a whole: a scalar, or an item of a list or map.
    fn value(
        &mut self,
        reader: &mut Reader<'_>,
        wire: Wire,
        ty: &'static FieldType,
        name: &str,
    ) -> Result<Value, WireError> {
        Ok(match ty {
            FieldType::Boolean => (reader.number(wire, name)? != 0).into(),
            FieldType::Int32 => low_word(reader.number(wire, name)?).into(),
            FieldType::Int64 => reader.number(wire, name)?.cast_signed().into(),
            FieldType::Double => {
                let mut value = Value::from(reader.double(wire, name)?);
                leaf::shorten(&mut value);
                value
            }
            FieldType::String => reader.text(wire, name)?.into(),
            FieldType::Bytes => STANDARD.encode(reader.bytes(wire, name)?).into(),
            FieldType::Time => time(reader.bytes(wire, name)?, false)?,
            FieldType::MicroTime => time(reader.bytes(wire, name)?, true)?,
            FieldType::Quantity => quantity(reader.bytes(wire, name)?)?,
            FieldType::IntOrString => int_or_string(reader.bytes(wire, name)?)?,
            FieldType::Json(definition) => {
                let bytes = reader.bytes(wire, name)?;
                self.nested(|decoder| decoder.json(bytes, definition))?
            }
            FieldType::Object(ty) => {
                let mut object = Map::new();
                self.structure(reader.bytes(wire, name)?, ty, &mut object)?;
                Value::Object(object)
            }
            FieldType::List(_) => Value::Array(self.wrapped_list(reader.bytes(wire, name)?)?),
            FieldType::Map(_) => return Err(WireError(format!("field {name} nests maps"))),
        })
    }

    /// The types that JSON writes in a form of their own.
    fn json(&mut self, bytes: &[u8], definition: &str) -> Result<Value, WireError> {
        let mut reader = Reader::new(bytes);
        let mut schema = None;
        let mut list = Vec::new();
        let mut value = Value::Null;
        let kind = definition.rsplit('.').next().unwrap_or(definition);
        while let Some((number, wire)) = reader.key()? {
            match (kind, number) {
                ("RawExtension" | "FieldsV1" | "JSON", 1) => value = self.raw(reader.bytes(wire, "raw")?)?,
                ("JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray", 1) | ("JSONSchemaPropsOrBool", 2) => {
                    let object = schema.get_or_insert_with(Map::new);
                    self.structure(reader.bytes(wire, "schema")?, schema_props(), object)?;
                }
                ("JSONSchemaPropsOrArray", 2) => {
                    let mut object = Map::new();
                    self.structure(reader.bytes(wire, "jSONSchemas")?, schema_props(), &mut object)?;
                    list.push(Value::Object(object));
                }
                ("JSONSchemaPropsOrStringArray", 2) => list.push(reader.text(wire, "property")?.into()),
                ("JSONSchemaPropsOrBool", 1) => value = (reader.number(wire, "allows")? != 0).into(),
                _ => reader.skip(wire)?,
            }
        }
        Ok(match schema {
            _ if !list.is_empty() => Value::Array(list),
            Some(schema) => Value::Object(schema),
            None if kind == "JSONSchemaPropsOrBool" && value.is_null() => Value::Bool(false),
            None => value,
        })
    }

    /// JSON, or an object in an envelope of its own.
    fn raw(&mut self, bytes: &[u8]) -> Result<Value, WireError> {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        if is_protobuf(bytes) {
            return self.nested(|decoder| decoder.enveloped(bytes));
        }
        let decoded = decode_untyped(bytes, BodyFormat::Json).map_err(|error| WireError(error.to_string()))?;
        Ok(decoded.value)
    }

    fn enveloped(&mut self, bytes: &[u8]) -> Result<Value, WireError> {
        let envelope = super::Envelope::read(bytes).map_err(WireError)?;
        let (api_version, kind) = (envelope.meta.api_version, envelope.meta.kind);
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let (ty, slots) = type_of(group, version, &kind)
            .ok_or_else(|| WireError(format!("no kind \"{kind}\" is registered for version \"{api_version}\"")))?;
        let mut object = Map::new();
        self.message(envelope.raw, ty, slots, &mut object)?;
        object.insert("apiVersion".to_owned(), api_version.into());
        object.insert("kind".to_owned(), kind.into());
        Ok(Value::Object(object))
    }
}

/// Whether JSON would not show what was read.
fn is_unset(value: Option<&Value>, omitempty: bool, field: &Field) -> bool {
    match value {
        Some(Value::Null) => true,
        Some(Value::Bool(flag)) => omitempty && !flag,
        Some(Value::Number(number)) => omitempty && number.as_f64() == Some(0.0),
        Some(Value::String(text)) => omitempty && text.is_empty(),
        Some(Value::Array(items)) => items.is_empty() && !field.required,
        _ => false,
    }
}

fn list_in<'o>(object: &'o mut Map<String, Value>, name: &str) -> &'o mut Vec<Value> {
    let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    list.as_array_mut().expect("lists are read as arrays")
}

fn is_number(ty: &FieldType) -> bool {
    matches!(ty, FieldType::Boolean | FieldType::Int32 | FieldType::Int64)
}

fn schema_props() -> &'static Type {
    type_by_name(SCHEMA_PROPS).expect("apiextensions are among the facts")
}

/// What a map entry without a value holds.
fn zero(ty: &FieldType) -> Value {
    match ty {
        FieldType::Boolean => false.into(),
        FieldType::Int32 | FieldType::Int64 | FieldType::Double | FieldType::IntOrString => 0.into(),
        FieldType::String | FieldType::Bytes => "".into(),
        FieldType::Quantity => "0".into(),
        FieldType::Object(_) | FieldType::Map(_) => Value::Object(Map::new()),
        FieldType::List(_) => Value::Array(Vec::new()),
        FieldType::Time | FieldType::MicroTime | FieldType::Json(_) => Value::Null,
    }
}

/// Integers of 32 bits come as 64, of which Go takes the lower half.
fn low_word(number: u64) -> i32 {
    #[allow(clippy::cast_possible_truncation)]
    let word = number as u32;
    word.cast_signed()
}

/// `{seconds, nanos}`; an empty message is no time. `Time` knows seconds only.
fn time(bytes: &[u8], micro: bool) -> Result<Value, WireError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.key()? {
        match number {
            1 => seconds = reader.number(wire, "seconds")?.cast_signed(),
            2 => nanos = low_word(reader.number(wire, "nanos")?),
            _ => reader.skip(wire)?,
        }
    }
    let nanos = if micro { nanos } else { 0 };
    let time = TIMES.contains(&seconds).then(|| jiff::Timestamp::new(seconds, nanos).ok()).flatten();
    let time = time.ok_or_else(|| WireError::new("Time.MarshalJSON: year outside of range [0,9999]"))?;
    Ok(if micro { format_micro_time(time) } else { format_time(time) }.into())
}

fn quantity(bytes: &[u8]) -> Result<Value, WireError> {
    let mut text = String::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.key()? {
        match number {
            1 => text = reader.text(wire, "string")?,
            _ => reader.skip(wire)?,
        }
    }
    if text.is_empty() {
        return Ok("0".into());
    }
    let canonical = quantity::canonical(&text).map_err(WireError::new)?;
    Ok(canonical.unwrap_or(text).into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, WireError> {
    let (mut is_text, mut number_value, mut text) = (false, 0, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.key()? {
        match number {
            1 => is_text = reader.number(wire, "type")? == 1,
            2 => number_value = low_word(reader.number(wire, "intVal")?),
            3 => text = reader.text(wire, "strVal")?,
            _ => reader.skip(wire)?,
        }
    }
    Ok(if is_text { text.into() } else { number_value.into() })
}
