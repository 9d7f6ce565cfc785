//! The schema of a custom resource, read from its structural OpenAPI schema.
//!
//! Only what the engines need: types, merge rules, defaults and whether unknown fields stay. Validation rules of the schema
//! (patterns, bounds, CEL) are not here.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::facts::{FieldType, ListType, type_by_name};
use crate::schema::Schema;

const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The schema of one position of a custom resource.
#[derive(Debug, Clone)]
pub struct OwnedSchema {
    pub(crate) shape: OwnedShape,
    pub(crate) list_type: ListType,
    pub(crate) list_keys: Vec<String>,
    pub(crate) atomic: bool,
    pub(crate) default: Option<Value>,
}

#[derive(Debug, Clone)]
pub(crate) enum OwnedShape {
    Facts(&'static FieldType),
    Untyped,
    Struct { fields: BTreeMap<String, OwnedSchema>, keeps_unknown: bool },
    List(Box<OwnedSchema>),
    Map(Box<OwnedSchema>),
}

static STRING: FieldType = FieldType::String;
static INT64: FieldType = FieldType::Int64;
static DOUBLE: FieldType = FieldType::Double;
static BOOLEAN: FieldType = FieldType::Boolean;
static INT_OR_STRING: FieldType = FieldType::IntOrString;

impl OwnedSchema {
    /// Reads the `openAPIV3Schema` of a version of a custom resource definition. `apiVersion`, `kind` and `metadata` are
    /// added as every object has them.
    pub fn from_structural(schema: &Value) -> Self {
        let mut root = Self::read(schema);
        if let OwnedShape::Untyped = root.shape {
            root.shape = OwnedShape::Struct { fields: BTreeMap::new(), keeps_unknown: true };
        }
        if let OwnedShape::Struct { fields, .. } = &mut root.shape {
            add_object_fields(fields);
        }
        root
    }

    /// The view that engines work over.
    pub fn schema(&self) -> Schema<'_> {
        Schema::owned(self)
    }

    fn plain(shape: OwnedShape) -> Self {
        Self { shape, list_type: ListType::Atomic, list_keys: Vec::new(), atomic: false, default: None }
    }

    fn read(schema: &Value) -> Self {
        let text = |key: &str| schema.get(key).and_then(Value::as_str);
        let mut read = Self::plain(read_shape(schema));
        read.list_type = match text("x-kubernetes-list-type") {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map,
            _ => ListType::Atomic,
        };
        let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
        read.list_keys = keys.filter_map(Value::as_str).map(str::to_owned).collect();
        read.atomic = text("x-kubernetes-map-type") == Some("atomic");
        read.default = schema.get("default").cloned();
        read
    }
}

fn read_shape(schema: &Value) -> OwnedShape {
    let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
    if flag("x-kubernetes-int-or-string") {
        return OwnedShape::Facts(&INT_OR_STRING);
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => OwnedShape::Facts(&STRING),
        Some("integer") => OwnedShape::Facts(&INT64),
        Some("number") => OwnedShape::Facts(&DOUBLE),
        Some("boolean") => OwnedShape::Facts(&BOOLEAN),
        Some("array") => OwnedShape::List(Box::new(OwnedSchema::read(schema.get("items").unwrap_or(&Value::Null)))),
        Some("object") => read_object(schema, flag("x-kubernetes-preserve-unknown-fields")),
        _ => OwnedShape::Untyped,
    }
}

fn read_object(schema: &Value, keeps_unknown: bool) -> OwnedShape {
    let properties = schema.get("properties").and_then(Value::as_object);
    match schema.get("additionalProperties") {
        Some(values @ Value::Object(_)) if properties.is_none_or(serde_json::Map::is_empty) => {
            return OwnedShape::Map(Box::new(OwnedSchema::read(values)));
        }
        Some(Value::Bool(true)) => return OwnedShape::Untyped,
        _ => {}
    }
    if properties.is_none() && keeps_unknown {
        return OwnedShape::Untyped;
    }
    let mut fields: BTreeMap<String, OwnedSchema> =
        properties.into_iter().flatten().map(|(name, property)| (name.clone(), OwnedSchema::read(property))).collect();
    if schema.get("x-kubernetes-embedded-resource").and_then(Value::as_bool).unwrap_or(false) {
        add_object_fields(&mut fields);
    }
    OwnedShape::Struct { fields, keeps_unknown }
}

fn add_object_fields(fields: &mut BTreeMap<String, OwnedSchema>) {
    static METADATA_TYPE: std::sync::OnceLock<FieldType> = std::sync::OnceLock::new();
    let metadata =
        METADATA_TYPE.get_or_init(|| FieldType::Object(type_by_name(METADATA).expect("the facts hold ObjectMeta")));
    fields.insert("apiVersion".to_owned(), OwnedSchema::plain(OwnedShape::Facts(&STRING)));
    fields.insert("kind".to_owned(), OwnedSchema::plain(OwnedShape::Facts(&STRING)));
    fields.insert("metadata".to_owned(), OwnedSchema::plain(OwnedShape::Facts(metadata)));
}
