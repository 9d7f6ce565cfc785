//! From bytes to an object: types are checked, unknown fields dropped and values made canonical in one pass.
//!
//! What comes out is what upstream's decoder would have stored, as far as the schema tells: null is unset, and optional
//! lists and maps that are empty are left out. The invariant: what the schema does not name never comes out.

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::leaf;
use crate::lexer::{Lexer, MAX_DEPTH};
use crate::problems::{DecodeError, FieldValidation, Path, Problems};
use crate::protobuf;
use crate::schema::{Schema, Shape, Struct};
use crate::validate::validate_fields;
use crate::yaml;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// JSON.
    Json,
    /// YAML, one document.
    Yaml,
    /// Upstream's protobuf form, which only built-in kinds have.
    Protobuf,
}

/// An object that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object.
    pub value: Value,
    /// What the client is to be warned of.
    pub warnings: Vec<String>,
}

/// A document that was read without a type.
#[derive(Debug, Clone, PartialEq)]
pub struct Untyped {
    /// The document.
    pub value: Value,
    /// Texts such as `duplicate field "spec.replicas"`, or of YAML `line 9: key "replicas" already set in map`.
    pub duplicates: Vec<String>,
    /// How it is written: JSON may be sent as YAML.
    pub format: BodyFormat,
}

impl Untyped {
    /// What a client hears that wants no duplicates.
    pub fn strict_error(&self) -> String {
        match self.format {
            BodyFormat::Yaml => format!("error strict decoding YAML: {}", yaml::strict_error(&self.duplicates)),
            _ => DecodeError::Strict(self.duplicates.clone()).to_string(),
        }
    }
}

/// `apiVersion` and `kind` of a body; empty where they are not set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypeMeta {
    /// `apps/v1`
    pub api_version: String,
    /// `Deployment`
    pub kind: String,
}

/// Reads an object of a known type.
pub fn decode_object(
    bytes: &[u8],
    format: BodyFormat,
    schema: Schema<'_>,
    mode: FieldValidation,
) -> Result<Decoded, DecodeError> {
    if format == BodyFormat::Protobuf {
        return protobuf::decode_protobuf(bytes, schema);
    }
    if format == BodyFormat::Yaml && !is_json(bytes) {
        return decode_yaml(bytes, schema, mode);
    }
    let mut decoder = Decoder { lexer: Lexer::new(bytes), problems: Problems::default(), depth: 0 };
    let value = decoder.value(schema, &Path::ROOT)?;
    decoder.lexer.finish()?;
    Ok(Decoded { value, warnings: decoder.problems.finish(mode)? })
}

/// Reads a document of any kind, such as a patch. Protobuf cannot be read without a type.
pub fn decode_untyped(bytes: &[u8], format: BodyFormat) -> Result<Untyped, DecodeError> {
    if format == BodyFormat::Protobuf {
        let decoded = protobuf::decode_protobuf(bytes, Schema::untyped())?;
        return Ok(Untyped { value: decoded.value, duplicates: decoded.warnings, format });
    }
    if format == BodyFormat::Yaml && !is_json(bytes) {
        return yaml::read(bytes);
    }
    let decoded = decode_object(bytes, BodyFormat::Json, Schema::untyped(), FieldValidation::Warn)?;
    Ok(Untyped { value: decoded.value, duplicates: decoded.warnings, format: BodyFormat::Json })
}

/// Finds out which kind a body says it is, reading nothing else of it.
pub fn peek_type_meta(bytes: &[u8], format: BodyFormat) -> Result<TypeMeta, DecodeError> {
    if format == BodyFormat::Protobuf {
        return protobuf::peek(bytes);
    }
    let parse_error =
        |error: DecodeError| DecodeError::Syntax(format!("couldn't get version/kind; json parse error: {error}"));
    if format == BodyFormat::Yaml && !is_json(bytes) {
        let document = yaml::read(bytes)?;
        let text = |key: &str| document.value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        return Ok(TypeMeta { api_version: text("apiVersion"), kind: text("kind") });
    }
    let mut decoder = Decoder { lexer: Lexer::new(bytes), problems: Problems::default(), depth: 0 };
    let meta = decoder.type_meta().map_err(parse_error)?;
    decoder.lexer.finish().map_err(parse_error)?;
    Ok(meta)
}

fn decode_yaml(bytes: &[u8], schema: Schema<'_>, mode: FieldValidation) -> Result<Decoded, DecodeError> {
    let document = yaml::read(bytes)?;
    let decoded = validate_fields(document.value, schema, mode);
    match mode {
        FieldValidation::Strict if !document.duplicates.is_empty() => {
            let mut problems = vec![yaml::strict_error(&document.duplicates)];
            match decoded {
                Ok(_) => {}
                Err(DecodeError::Strict(others)) => problems.extend(others),
                Err(other) => return Err(other),
            }
            Err(DecodeError::Strict(problems))
        }
        FieldValidation::Warn => decoded.map(|mut decoded| {
            decoded.warnings.splice(0..0, document.duplicates).for_each(drop);
            decoded
        }),
        _ => decoded,
    }
}

/// Whether what is sent as YAML is JSON, which is YAML too. Clients send applies so, and reading JSON is cheaper.
fn is_json(bytes: &[u8]) -> bool {
    let mut lexer = Lexer::new(bytes);
    lexer.peek() == Some(b'{') && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

struct Decoder<'b> {
    lexer: Lexer<'b>,
    problems: Problems,
    depth: usize,
}

impl Decoder<'_> {
    fn value(&mut self, schema: Schema<'_>, path: &Path<'_>) -> Result<Value, DecodeError> {
        match self.lexer.peek() {
            Some(b'{') => self.nested(|decoder| decoder.object(schema, path)),
            Some(b'[') => self.nested(|decoder| decoder.list(schema, path)),
            Some(b'"') => {
                let text = self.lexer.string()?;
                Ok(self.scalar(Value::String(text), None, schema, path))
            }
            Some(b'-' | b'0'..=b'9') => {
                let number = self.lexer.number()?;
                Ok(self.scalar(number.value, Some(number.text), schema, path))
            }
            Some(b't' | b'f') => {
                let word = self.lexer.word()?;
                Ok(self.scalar(word, None, schema, path))
            }
            Some(b'n') => self.lexer.word(),
            _ => Err(self.lexer.unexpected("looking for beginning of value")),
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Result<Value, DecodeError>) -> Result<Value, DecodeError> {
        self.lexer.bump();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(DecodeError::Syntax("exceeded max depth".to_owned()));
        }
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn scalar(&mut self, mut value: Value, text: Option<&str>, schema: Schema<'_>, path: &Path<'_>) -> Value {
        leaf::check(&mut value, text, schema, path, &mut self.problems);
        value
    }

    fn object(&mut self, schema: Schema<'_>, path: &Path<'_>) -> Result<Value, DecodeError> {
        match schema.shape() {
            Shape::Struct(fields) => self.structure(fields, path),
            Shape::Map(values) => self.map(values, path, true),
            Shape::Untyped => self.map(schema, path, true),
            Shape::Json => self.map(schema, path, false),
            _ => {
                self.problems.mismatch(path, "object", schema);
                self.map(Schema::untyped(), path, false)
            }
        }
    }

    fn structure(&mut self, fields: Struct<'_>, path: &Path<'_>) -> Result<Value, DecodeError> {
        let mut object = Map::new();
        let mut emptied = Vec::new();
        let mut first = true;
        while let Some(key) = self.lexer.next_key(first)? {
            first = false;
            let Some((name, field)) = fields.field(&key) else {
                self.unknown(fields, key, &mut object, path)?;
                continue;
            };
            if object.contains_key(name) || emptied.contains(&name) {
                self.problems.duplicate(path, name);
            }
            let value = self.value(field, &path.field(name, fields.go_struct()))?;
            if is_unset(name, &value, field) {
                object.remove(name);
                emptied.push(name);
            } else {
                object.insert(key, value);
            }
        }
        Ok(Value::Object(object))
    }

    fn unknown(
        &mut self,
        fields: Struct<'_>,
        key: String,
        object: &mut Map<String, Value>,
        path: &Path<'_>,
    ) -> Result<(), DecodeError> {
        if fields.keeps_unknown() {
            let value = self.value(Schema::untyped(), &path.key(&key))?;
            if object.insert(key.clone(), value).is_some() {
                self.problems.duplicate(path, &key);
            }
        } else {
            self.problems.unknown(path, &key);
            self.skip()?;
        }
        Ok(())
    }

    /// Reads what nobody wants, for its syntax only.
    fn skip(&mut self) -> Result<(), DecodeError> {
        let mut unheard = std::mem::take(&mut self.problems);
        let skipped = self.value(Schema::untyped(), &Path::ROOT).map(drop);
        std::mem::swap(&mut self.problems, &mut unheard);
        skipped
    }

    fn map(&mut self, values: Schema<'_>, path: &Path<'_>, tracked: bool) -> Result<Value, DecodeError> {
        let mut object = Map::new();
        let mut first = true;
        while let Some(key) = self.lexer.next_key(first)? {
            first = false;
            if tracked && object.contains_key(&key) {
                self.problems.duplicate(path, &key);
            }
            let value = self.value(values, &path.key(&key))?;
            object.insert(key, unless_null(value, values));
        }
        Ok(Value::Object(object))
    }

    fn list(&mut self, schema: Schema<'_>, path: &Path<'_>) -> Result<Value, DecodeError> {
        let items = match schema.shape() {
            Shape::List(items) => items,
            Shape::Untyped | Shape::Json => schema,
            _ => {
                self.problems.mismatch(path, "array", schema);
                Schema::untyped()
            }
        };
        let mut list = Vec::new();
        while self.lexer.next_item(list.is_empty())? {
            let value = self.value(items, &path.index(list.len()))?;
            list.push(unless_null(value, items));
        }
        Ok(Value::Array(list))
    }

    fn type_meta(&mut self) -> Result<TypeMeta, DecodeError> {
        let mut meta = TypeMeta::default();
        if self.lexer.peek() != Some(b'{') {
            let value = self.value(Schema::untyped(), &Path::ROOT)?;
            let found = leaf::go_kind(&value);
            let text = "of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
                        \"json:\\\"kind,omitempty\\\"\" }";
            return match value {
                Value::Null => Ok(meta),
                _ => Err(DecodeError::Type(format!("json: cannot unmarshal {found} into Go value {text}"))),
            };
        }
        self.lexer.bump();
        let mut first = true;
        while let Some(key) = self.lexer.next_key(first)? {
            first = false;
            let target = match key.as_str() {
                "apiVersion" => &mut meta.api_version,
                "kind" => &mut meta.kind,
                _ => {
                    self.skip()?;
                    continue;
                }
            };
            match self.value(Schema::untyped(), &Path::ROOT)? {
                Value::String(text) => *target = text,
                Value::Null => {}
                other => {
                    let found = leaf::go_kind(&other);
                    let text = format!("json: cannot unmarshal {found} into Go struct field .{key} of type string");
                    return Err(DecodeError::Type(text));
                }
            }
        }
        Ok(meta)
    }
}

/// Whether Go's encoder would leave the field out.
///
/// An empty `managedFields` stays: it is how clients reset them.
pub(crate) fn is_unset(name: &str, value: &Value, field: Schema<'_>) -> bool {
    if !field.is_built_in() || (name == "managedFields" && !value.is_null()) {
        return false;
    }
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty() && !field.is_required(),
        Value::Object(entries) => entries.is_empty() && !field.is_required() && matches!(field.shape(), Shape::Map(_)),
        _ => false,
    }
}

/// Null inside typed lists and maps is the zero value.
pub(crate) fn unless_null(value: Value, schema: Schema<'_>) -> Value {
    match value {
        Value::Null if schema.is_built_in() => leaf::zero(schema),
        value => value,
    }
}
