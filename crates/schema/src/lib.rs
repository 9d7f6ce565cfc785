//! Facts about every field of every kind, and the engines over them.
//!
//! Pure: no clock, no files, no network, no runtime. The facts are generated tables of plain data; the engines are
//! functions of `serde_json::Value` and a [`Schema`].

mod decode;
mod defaults;
mod facts;
#[path = "generated/index.rs"]
#[rustfmt::skip]
mod generated;
mod leaf;
mod lexer;
mod openapi;
mod owned;
mod ownership;
mod patch;
mod problems;
mod protobuf;
mod quantity;
mod schema;
#[cfg(test)]
mod testing;
mod validate;
mod yaml;

pub use decode::{BodyFormat, Decoded, TypeMeta, Untyped, decode_object, decode_untyped, peek_type_meta};
pub use defaults::apply_schema_defaults;
pub use facts::{
    Content, Default, Field, FieldType, GroupVersion, Kind, ListType, MapType, Merge, Slot, Type, Union,
    group_versions, type_by_gvk, type_by_name, types,
};
pub use openapi::{
    ForeignSchema, OPENAPI_V2_PROTOBUF, OPENAPI_V2_PROTOBUF_ASKED, ServedResource, ServedSubresource, openapi_v2_json,
    openapi_v2_protobuf, openapi_v3, openapi_v3_hash, openapi_v3_index,
};
pub use owned::OwnedSchema;
pub use ownership::{
    Applied, ApplyError, Conflict, FieldSet, ParseFieldSetError, PathElement, ResetFields, Scalar, Writer, apply,
    configure, managers_after_scale, managers_of_scale, update_managed_fields,
};
pub use patch::{PatchError, create_merge_patch, json_patch, merge_patch, strategic_merge_patch};
pub use problems::{DecodeError, FieldValidation};
pub use protobuf::{
    EncodeError, PROTOBUF, PROTOBUF_WATCH, decode_protobuf, encode_protobuf, has_protobuf, is_protobuf,
    protobuf_watch_frame,
};
pub use schema::{Keys, Schema, Shape, Struct};
pub use validate::validate_fields;
