//! The one view of types that every engine works over: built-in facts, a custom resource's own schema, or none at all.
//!
//! A [`Schema`] is the type of one position in an object (a field, list item or map value) together with how that position
//! merges. It is a cheap copy, borrowed from where the type lives.

use std::sync::LazyLock;

use serde_json::Value;

use crate::facts::{self, Field, FieldType, ListType, MapType, Merge, Type};
use crate::owned::{OwnedSchema, OwnedShape};

static IMPLICIT: LazyLock<Implicit> = LazyLock::new(|| Implicit {
    structure: Value::Object(serde_json::Map::new()),
    text: Value::from(""),
    number: Value::from(0),
    flag: Value::Bool(false),
    null: Value::Null,
});

struct Implicit {
    structure: Value,
    text: Value,
    number: Value,
    flag: Value,
    null: Value,
}

/// The type of one position.
#[derive(Debug, Clone, Copy)]
pub struct Schema<'a>(Source<'a>);

#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    Root(&'static Type),
    Field(&'static Field),
    Inner(&'static FieldType),
    Owned(&'a OwnedSchema),
    Untyped,
}

/// What kind of value a position holds.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Shape<'a> {
    Boolean,
    Int32,
    Int64,
    Double,
    String,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// Free JSON that no one looks into. Maps are owned entry by entry, lists as a whole.
    Json,
    /// Nothing is known: maps are owned entry by entry, lists as a whole.
    Untyped,
    /// Named fields.
    Struct(Struct<'a>),
    /// Items of one type.
    List(Schema<'a>),
    /// Text to values of one type.
    Map(Schema<'a>),
}

/// The fields of a structure.
#[derive(Debug, Clone, Copy)]
pub struct Struct<'a>(StructSource<'a>);

#[derive(Debug, Clone, Copy)]
enum StructSource<'a> {
    Facts(&'static Type),
    Owned(&'a OwnedSchema),
}

/// The names of a list's key fields.
#[derive(Debug, Clone, Copy)]
pub enum Keys<'a> {
    /// From the facts.
    Facts(&'static [&'static str]),
    /// From a custom resource's schema.
    Owned(&'a [String]),
}

impl<'a> Keys<'a> {
    /// The names in their order.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let (facts, owned): (&'a [&'static str], &'a [String]) = match self {
            Keys::Facts(names) => (names, &[]),
            Keys::Owned(names) => (&[], names),
        };
        facts.iter().copied().chain(owned.iter().map(String::as_str))
    }
}

impl Schema<'static> {
    /// A built-in type.
    pub fn of(ty: &'static Type) -> Self {
        Self(Source::Root(ty))
    }

    /// Nothing is known about the value.
    pub fn untyped() -> Self {
        Self(Source::Untyped)
    }
}

impl<'a> Schema<'a> {
    /// A custom resource's schema.
    pub fn owned(schema: &'a OwnedSchema) -> Self {
        Self(Source::Owned(schema))
    }

    /// What kind of value stands here.
    pub fn shape(self) -> Shape<'a> {
        match self.0 {
            Source::Root(ty) => Shape::Struct(Struct(StructSource::Facts(ty))),
            Source::Field(field) => shape_of(&field.ty),
            Source::Inner(ty) => shape_of(ty),
            Source::Owned(schema) => match &schema.shape {
                OwnedShape::Facts(ty) => shape_of(ty),
                OwnedShape::Untyped => Shape::Untyped,
                OwnedShape::Struct { .. } => Shape::Struct(Struct(StructSource::Owned(schema))),
                OwnedShape::List(items) => Shape::List(Schema::owned(items)),
                OwnedShape::Map(values) => Shape::Map(Schema::owned(values)),
            },
            Source::Untyped => Shape::Untyped,
        }
    }

    fn merge(self) -> Option<&'static Merge> {
        match self.0 {
            Source::Field(field) => field.merge,
            _ => None,
        }
    }

    /// How a list at this position is owned. A list of which nothing else is said is atomic.
    pub fn list_type(self) -> ListType {
        match self.0 {
            Source::Owned(schema) => schema.list_type,
            _ => self.merge().and_then(|merge| merge.list_type).unwrap_or(ListType::Atomic),
        }
    }

    /// The key fields of the items of a map list.
    pub fn list_keys(self) -> Keys<'a> {
        match self.0 {
            Source::Owned(schema) => Keys::Owned(&schema.list_keys),
            _ => Keys::Facts(self.merge().map_or(&[], |merge| merge.list_keys)),
        }
    }

    /// Whether a map or structure at this position has one owner as a whole.
    pub fn is_atomic(self) -> bool {
        if let Some(map_type) = self.merge().and_then(|merge| merge.map_type) {
            return map_type == MapType::Atomic;
        }
        match (self.0, self.shape()) {
            (Source::Owned(schema), _) => schema.atomic,
            (_, Shape::Struct(Struct(StructSource::Facts(ty)))) => ty.atomic,
            _ => false,
        }
    }

    /// Whether strategic merge patch merges the list here.
    pub fn patch_merges(self) -> bool {
        self.merge().is_some_and(|merge| merge.patch_merge)
    }

    /// Whether strategic merge patch replaces the structure here.
    pub fn patch_replaces(self) -> bool {
        self.merge().is_some_and(|merge| merge.patch_replace)
    }

    /// The field by which strategic merge patch finds list items.
    pub fn patch_key(self) -> Option<&'static str> {
        self.merge().and_then(|merge| merge.patch_key)
    }

    /// The default of this position: from a custom resource's schema, or the meaningful one of the facts.
    pub fn default(self) -> Option<Value> {
        match self.0 {
            Source::Owned(schema) => schema.default.clone(),
            Source::Field(field) => match field.default {
                facts::Default::Text(text) if !text.is_empty() => Some(text.into()),
                facts::Default::Integer(number) if number != 0 => Some(number.into()),
                facts::Default::Flag(true) => Some(true.into()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The default that list keys take, where also zero values count.
    pub fn key_default(self) -> Option<Value> {
        match self.0 {
            Source::Owned(schema) => schema.default.clone(),
            Source::Field(field) => match field.default {
                facts::Default::Absent | facts::Default::Struct => None,
                facts::Default::Text(text) => Some(text.into()),
                facts::Default::Integer(number) => Some(number.into()),
                facts::Default::Flag(flag) => Some(flag.into()),
            },
            _ => None,
        }
    }

    /// What Go's structures hold where the field was never set: structures that are no pointers, and zero values that are
    /// written out.
    pub(crate) fn implicit(self) -> Option<&'static Value> {
        let Source::Field(field) = self.0 else { return None };
        match (field.default, &field.ty) {
            (facts::Default::Struct, FieldType::Object(_)) => Some(&IMPLICIT.structure),
            (facts::Default::Text(""), _) => Some(&IMPLICIT.text),
            (facts::Default::Integer(0), _) => Some(&IMPLICIT.number),
            (facts::Default::Flag(false), _) => Some(&IMPLICIT.flag),
            (facts::Default::Absent, FieldType::List(_) | FieldType::Map(_)) if field.required => Some(&IMPLICIT.null),
            _ => None,
        }
    }

    /// The built-in structure that stands here.
    pub(crate) fn built_in_type(self) -> Option<&'static Type> {
        match self.shape() {
            Shape::Struct(Struct(StructSource::Facts(ty))) => Some(ty),
            _ => None,
        }
    }

    /// Whether Go's decoder and encoder would treat the position as a typed field (null is unset, empty is omitted).
    pub(crate) fn is_built_in(self) -> bool {
        !matches!(self.0, Source::Owned(_) | Source::Untyped)
    }

    /// Whether the field stands even when its list or map is empty.
    pub(crate) fn is_required(self) -> bool {
        matches!(self.0, Source::Field(field) if field.required)
    }

    /// The Go type that error texts name.
    pub(crate) fn go_type(self) -> String {
        match self.0 {
            Source::Root(ty) => ty.go_name().to_owned(),
            Source::Field(field) => go_type_of(&field.ty),
            Source::Inner(ty) => go_type_of(ty),
            Source::Owned(_) | Source::Untyped => "map[string]interface {}".to_owned(),
        }
    }
}

impl<'a> Struct<'a> {
    /// The field with this JSON name and its interned name.
    pub fn field(self, name: &str) -> Option<(&'a str, Schema<'a>)> {
        match self.0 {
            StructSource::Facts(ty) => ty.field(name).map(|field| (field.name, Schema(Source::Field(field)))),
            StructSource::Owned(schema) => match &schema.shape {
                OwnedShape::Struct { fields, .. } => {
                    fields.get_key_value(name).map(|(name, schema)| (name.as_str(), Schema::owned(schema)))
                }
                _ => None,
            },
        }
    }

    /// All fields.
    pub fn fields(self) -> impl Iterator<Item = (&'a str, Schema<'a>)> {
        let (facts, owned) = match self.0 {
            StructSource::Facts(ty) => (ty.fields, None),
            StructSource::Owned(schema) => match &schema.shape {
                OwnedShape::Struct { fields, .. } => (&[] as &'static [Field], Some(fields)),
                _ => (&[] as &'static [Field], None),
            },
        };
        let facts = facts.iter().map(|field| (field.name, Schema(Source::Field(field))));
        facts.chain(owned.into_iter().flatten().map(|(name, schema)| (name.as_str(), Schema::owned(schema))))
    }

    /// Whether fields that the schema does not name are kept (`x-kubernetes-preserve-unknown-fields`).
    pub fn keeps_unknown(self) -> bool {
        match self.0 {
            StructSource::Facts(_) => false,
            StructSource::Owned(schema) => matches!(schema.shape, OwnedShape::Struct { keeps_unknown: true, .. }),
        }
    }

    /// Name of the Go struct in error texts.
    pub(crate) fn go_struct(self) -> &'static str {
        match self.0 {
            StructSource::Facts(ty) => ty.short_name(),
            StructSource::Owned(_) => "",
        }
    }
}

fn shape_of<'a>(ty: &'static FieldType) -> Shape<'a> {
    match ty {
        FieldType::Boolean => Shape::Boolean,
        FieldType::Int32 => Shape::Int32,
        FieldType::Int64 => Shape::Int64,
        FieldType::Double => Shape::Double,
        FieldType::String => Shape::String,
        FieldType::Bytes => Shape::Bytes,
        FieldType::Time => Shape::Time,
        FieldType::MicroTime => Shape::MicroTime,
        FieldType::Quantity => Shape::Quantity,
        FieldType::IntOrString => Shape::IntOrString,
        FieldType::Json(_) => Shape::Json,
        FieldType::Object(ty) => Shape::Struct(Struct(StructSource::Facts(ty))),
        FieldType::List(items) => Shape::List(Schema(Source::Inner(items))),
        FieldType::Map(values) => Shape::Map(Schema(Source::Inner(values))),
    }
}

fn go_type_of(ty: &FieldType) -> String {
    match ty {
        FieldType::Boolean => "bool".to_owned(),
        FieldType::Int32 | FieldType::IntOrString => "int32".to_owned(),
        FieldType::Int64 => "int64".to_owned(),
        FieldType::Double => "float64".to_owned(),
        FieldType::String | FieldType::Time | FieldType::MicroTime | FieldType::Quantity => "string".to_owned(),
        FieldType::Bytes => "[]uint8".to_owned(),
        FieldType::Json(_) => "interface {}".to_owned(),
        FieldType::Object(ty) => ty.go_name().to_owned(),
        FieldType::List(items) => format!("[]{}", go_type_of(items)),
        FieldType::Map(values) => format!("map[string]{}", go_type_of(values)),
    }
}
