//! Upstream's protobuf form of objects (`application/vnd.kubernetes.protobuf`), both ways.
//!
//! Works over the facts, as JSON decoding does: the same object comes out of either form. Kinds without a message upstream
//! (custom resources, `Table`) have no such form, and say so. The invariant: what JSON leaves out because it is zero is
//! left out here too, although Go sends such zeroes.

mod decoding;
mod encoding;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::decode::{Decoded, TypeMeta};
use crate::facts::{Default, Field, FieldType, Slot, Type, type_by_gvk, type_by_name};
use crate::problems::DecodeError;
use crate::schema::Schema;
use encoding::{Writer, write_object};
use wire::{Reader, Wire, WireError};

/// Media type of objects and lists.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Media type of watches, as it stands in `Content-Type`.
pub const PROTOBUF_WATCH: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// What every object in this form starts with.
const MAGIC: [u8; 4] = *b"k8s\0";

/// Name of the definition behind `apiextensions.k8s.io/v1` schemas, which three JSON types hold.
const SCHEMA_PROPS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// Metadata alone, which OpenAPI documents do not define.
static PARTIAL: LazyLock<[Type; 2]> = LazyLock::new(|| {
    let object = metadata_type("PartialObjectMetadata", "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", None);
    let item: &'static Type = Box::leak(Box::new(object));
    let object = metadata_type("PartialObjectMetadata", "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", None);
    let list = metadata_type("PartialObjectMetadataList", "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta", Some(item));
    [object, list]
});

/// Why an object has no protobuf form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Upstream has no message for the kind: answer in JSON, or with 406 where the client accepts nothing else.
    #[error("object {kind} of {api_version:?} does not implement the protobuf marshalling interface")]
    NoMessage {
        /// `apiVersion` of the object.
        api_version: String,
        /// `kind` of the object.
        kind: String,
    },
    /// The object does not fit its own type.
    #[error("field {field} does not hold what its type says")]
    Mismatch {
        /// JSON name of the field.
        field: String,
    },
}

/// Whether the kind has a protobuf form. Lists count as kinds (`PodList`).
pub fn has_protobuf(group: &str, version: &str, kind: &str) -> bool {
    type_of(group, version, kind).is_some()
}

/// Whether a body is in this form.
pub fn is_protobuf(body: &[u8]) -> bool {
    body.starts_with(&MAGIC)
}

/// Reads an object of a known type. The envelope's `apiVersion` and `kind` come out with it where they are set.
///
/// Fields that the type does not have are skipped silently, as upstream does.
pub fn decode_protobuf(body: &[u8], schema: Schema<'_>) -> Result<Decoded, DecodeError> {
    let Some((ty, slots)) = schema.built_in_type().and_then(|ty| Some((ty, ty.message?))) else {
        let text = "object does not implement the protobuf marshalling interface and cannot be decoded from protobuf";
        return Err(DecodeError::Type(text.to_owned()));
    };
    let envelope = Envelope::read(body).map_err(DecodeError::Type)?;
    let mut object = Map::new();
    decoding::read_message(envelope.raw, ty, slots, &mut object).map_err(|error| DecodeError::Type(error.0))?;
    for (name, text) in [("apiVersion", envelope.meta.api_version), ("kind", envelope.meta.kind)] {
        if !text.is_empty() && ty.field(name).is_some() {
            object.insert(name.to_owned(), text.into());
        }
    }
    Ok(Decoded { value: Value::Object(object), warnings: Vec::new() })
}

/// The kind that the envelope of a body names.
pub(crate) fn peek(body: &[u8]) -> Result<TypeMeta, DecodeError> {
    Envelope::read(body).map(|envelope| envelope.meta).map_err(DecodeError::Syntax)
}

/// An object, list or `Status` in its envelope; the kind is the one that the object itself names.
pub fn encode_protobuf(object: &Value) -> Result<Vec<u8>, EncodeError> {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let Some((ty, slots)) = type_of(group, version, kind) else {
        return Err(EncodeError::NoMessage { api_version: api_version.to_owned(), kind: kind.to_owned() });
    };
    let mut writer = Writer::default();
    writer.0.extend(MAGIC);
    writer.message(1, |meta| {
        meta.bytes(1, api_version.as_bytes());
        meta.bytes(2, kind.as_bytes());
        Ok(())
    })?;
    writer.message(2, |raw| write_object(raw, ty, slots, object))?;
    writer.bytes(3, b"");
    writer.bytes(4, b"");
    Ok(writer.0)
}

/// One event of a watch with its length, ready to be sent. `object` is what [`encode_protobuf`] made.
pub fn protobuf_watch_frame(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut writer = Writer(vec![0; 4]);
    writer.bytes(1, event_type.as_bytes());
    let inner = wire::varint_len(object.len() as u64) + 1 + object.len();
    writer.key(2, Wire::Bytes);
    writer.varint(inner as u64);
    writer.bytes(1, object);
    let length = u32::try_from(writer.0.len() - 4).expect("an event is far smaller than 4 GiB");
    writer.0[..4].copy_from_slice(&length.to_be_bytes());
    writer.0
}

/// `runtime.Unknown`: what an object travels in.
struct Envelope<'b> {
    meta: TypeMeta,
    raw: &'b [u8],
}

impl<'b> Envelope<'b> {
    fn read(body: &'b [u8]) -> Result<Self, String> {
        if body.is_empty() {
            return Err("empty data".to_owned());
        }
        let Some(content) = body.strip_prefix(&MAGIC) else {
            let text = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";
            return Err(text.to_owned());
        };
        if content.is_empty() {
            return Err("empty body".to_owned());
        }
        Self::read_unknown(content).map_err(|error| error.0)
    }

    fn read_unknown(content: &'b [u8]) -> Result<Self, WireError> {
        let mut envelope = Self { meta: TypeMeta::default(), raw: &[] };
        let mut reader = Reader::new(content);
        while let Some((number, wire)) = reader.key()? {
            match number {
                1 => {
                    let mut meta = Reader::new(reader.bytes(wire, "typeMeta")?);
                    while let Some((number, wire)) = meta.key()? {
                        match number {
                            1 => envelope.meta.api_version = meta.text(wire, "apiVersion")?,
                            2 => envelope.meta.kind = meta.text(wire, "kind")?,
                            _ => meta.skip(wire)?,
                        }
                    }
                }
                2 => envelope.raw = reader.bytes(wire, "raw")?,
                _ => reader.skip(wire)?,
            }
        }
        Ok(envelope)
    }
}

/// The type of a kind with its message.
fn type_of(group: &str, version: &str, kind: &str) -> Option<(&'static Type, &'static [Slot])> {
    let ty = match (group, version, kind) {
        ("meta.k8s.io", "v1", "PartialObjectMetadata") => &PARTIAL[0],
        ("meta.k8s.io", "v1", "PartialObjectMetadataList") => &PARTIAL[1],
        _ => type_by_gvk(group, version, kind)?,
    };
    Some((ty, ty.message?))
}

/// A type with metadata, and items where it is a list.
fn metadata_type(kind: &str, metadata: &str, item: Option<&'static Type>) -> Type {
    static SLOTS: [Slot; 2] = [Slot::field(1, 1), Slot::field(2, 0)];
    static OBJECT: [Slot; 1] = [Slot::field(1, 0)];
    let metadata = type_by_name(metadata).expect("metadata is among the facts");
    let field = |name, ty| Field { name, ty, required: false, default: Default::Absent, merge: None };
    let mut fields = vec![field("metadata", FieldType::Object(metadata))];
    if let Some(item) = item {
        fields.insert(0, field("items", FieldType::List(Box::leak(Box::new(FieldType::Object(item))))));
    }
    Type {
        name: Box::leak(format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}").into_boxed_str()),
        atomic: false,
        kinds: &[],
        unions: &[],
        fields: fields.leak(),
        message: Some(if item.is_some() { &SLOTS } else { &OBJECT }),
    }
}
