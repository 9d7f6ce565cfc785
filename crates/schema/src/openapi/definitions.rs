//! Definitions of types, in the dialects of both versions.
//!
//! Version 2 knows no `oneOf` and nothing beside a `$ref`, and upstream leaves defaults out of it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::prose;
use crate::facts::{Default, Field, FieldType, ListType, MapType, Merge, Type, type_by_name};

/// Which version of OpenAPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

impl Dialect {
    /// A reference to a definition.
    pub(super) fn reference(self, name: &str) -> Value {
        let prefix = if self == Dialect::V2 { "#/definitions/" } else { "#/components/schemas/" };
        json!({"$ref": format!("{prefix}{name}")})
    }
}

/// A definition that is to be written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Definition {
    /// A structure.
    Structure(&'static Type),
    /// A scalar or free JSON that has a name.
    Special,
}

/// The named definitions and everything they refer to. Names without facts stand for objects of which nothing is known.
pub(super) fn closure<'n>(roots: impl IntoIterator<Item = &'n str>) -> BTreeMap<String, Definition> {
    let mut found = BTreeMap::new();
    let mut open: Vec<String> = roots.into_iter().map(str::to_owned).collect();
    while let Some(name) = open.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let definition = type_by_name(&name).map_or(Definition::Special, Definition::Structure);
        if let Definition::Structure(ty) = definition {
            open.extend(ty.fields.iter().filter_map(|field| referred(&field.ty)).map(str::to_owned));
        }
        found.insert(name, definition);
    }
    found
}

fn referred(ty: &FieldType) -> Option<&'static str> {
    match ty {
        FieldType::Object(ty) => Some(ty.name),
        FieldType::Json(name) => Some(name),
        FieldType::Time => Some("io.k8s.apimachinery.pkg.apis.meta.v1.Time"),
        FieldType::MicroTime => Some("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"),
        FieldType::Quantity => Some(QUANTITY),
        FieldType::IntOrString => Some(INT_OR_STRING),
        FieldType::List(inner) | FieldType::Map(inner) => referred(inner),
        _ => None,
    }
}

/// Renders a definition. `group_version` is the one whose document it stands in; `None` in a document of all.
pub(super) fn render(
    name: &str,
    definition: Definition,
    dialect: Dialect,
    group_versions: &[(String, String)],
) -> Value {
    match definition {
        Definition::Structure(ty) => structure(ty, dialect, group_versions),
        Definition::Special => special(name, dialect),
    }
}

fn special(name: &str, dialect: Dialect) -> Value {
    let short = name.rsplit('.').next().unwrap_or(name);
    match (short, dialect) {
        ("Time" | "MicroTime", _) => json!({"type": "string", "format": "date-time"}),
        ("Quantity", Dialect::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        ("Quantity", Dialect::V2) => json!({"type": "string"}),
        ("IntOrString", Dialect::V3) => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        ("IntOrString", Dialect::V2) => json!({"type": "string", "format": "int-or-string"}),
        _ if short.starts_with("JSON") => json!({}),
        _ => json!({"type": "object"}),
    }
}

fn structure(ty: &Type, dialect: Dialect, group_versions: &[(String, String)]) -> Value {
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    if !ty.fields.is_empty() {
        let properties = ty.fields.iter().map(|field| (field.name.to_owned(), property(ty, field, dialect)));
        schema.insert("properties".to_owned(), Value::Object(properties.collect()));
    }
    let required: Vec<&str> = ty.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    if ty.atomic {
        schema.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    if !ty.unions.is_empty() {
        schema.insert("x-kubernetes-unions".to_owned(), unions(ty));
    }
    let kinds = kinds(ty, group_versions);
    if !kinds.is_empty() {
        schema.insert("x-kubernetes-group-version-kind".to_owned(), kinds.into());
    }
    Value::Object(schema)
}

fn unions(ty: &Type) -> Value {
    let union = |union: &crate::facts::Union| {
        let mut rendered = Map::new();
        if let Some(discriminator) = union.discriminator {
            rendered.insert("discriminator".to_owned(), discriminator.into());
        }
        let fields = union.fields.iter().map(|(field, value)| ((*field).to_owned(), Value::from(*value)));
        rendered.insert("fields-to-discriminateBy".to_owned(), Value::Object(fields.collect()));
        Value::Object(rendered)
    };
    ty.unions.iter().map(union).collect()
}

fn kinds(ty: &Type, group_versions: &[(String, String)]) -> Vec<Value> {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut kinds: Vec<Value> = ty.kinds.iter().map(|k| kind(k.group, k.version, k.kind)).collect();
    // These two exist in every group version.
    if matches!(ty.short_name(), "DeleteOptions" | "WatchEvent") && ty.name.starts_with(META) {
        let others = group_versions.iter().filter(|(group, _)| !group.is_empty());
        kinds.extend(others.map(|(group, version)| kind(group, version, ty.short_name())));
    }
    kinds
}

fn property(ty: &Type, field: &Field, dialect: Dialect) -> Value {
    let mut schema = field_type(&field.ty, dialect);
    let description = prose::description(ty.name, field.name);
    let extensions = field.merge.map(extensions).unwrap_or_default();
    let Value::Object(object) = &mut schema else { return schema };
    if dialect == Dialect::V3 {
        let has_more = field.default != Default::Absent || !extensions.is_empty() || description.is_some();
        // Nothing may stand beside a `$ref`; upstream wraps it wherever the property has a description, which is nearly
        // everywhere.
        if let Some(reference) = object.remove("$ref") {
            match has_more {
                true => object.insert("allOf".to_owned(), json!([{"$ref": reference}])),
                false => object.insert("$ref".to_owned(), reference),
            };
        }
        match field.default {
            Default::Absent => None,
            Default::Struct => object.insert("default".to_owned(), json!({})),
            Default::Text(text) => object.insert("default".to_owned(), text.into()),
            Default::Integer(number) => object.insert("default".to_owned(), number.into()),
            Default::Flag(flag) => object.insert("default".to_owned(), flag.into()),
        };
    }
    object.extend(extensions);
    object.extend(description.map(|text| ("description".to_owned(), text.into())));
    schema
}

fn field_type(ty: &FieldType, dialect: Dialect) -> Value {
    match ty {
        FieldType::Boolean => json!({"type": "boolean"}),
        FieldType::Int32 => json!({"type": "integer", "format": "int32"}),
        FieldType::Int64 => json!({"type": "integer", "format": "int64"}),
        FieldType::Double => json!({"type": "number", "format": "double"}),
        FieldType::String => json!({"type": "string"}),
        FieldType::Bytes => json!({"type": "string", "format": "byte"}),
        FieldType::List(items) => json!({"type": "array", "items": field_type(items, dialect)}),
        FieldType::Map(values) => json!({"type": "object", "additionalProperties": field_type(values, dialect)}),
        named => dialect.reference(referred(named).unwrap_or_default()),
    }
}

fn extensions(merge: &'static Merge) -> Map<String, Value> {
    let mut extensions = Map::new();
    let mut set = |name: &str, value: Value| {
        extensions.insert(format!("x-kubernetes-{name}"), value);
    };
    if let Some(list_type) = merge.list_type {
        let text = match list_type {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        set("list-type", text.into());
    }
    if !merge.list_keys.is_empty() {
        set("list-map-keys", merge.list_keys.into());
    }
    if let Some(map_type) = merge.map_type {
        set("map-type", if map_type == MapType::Atomic { "atomic" } else { "granular" }.into());
    }
    let strategies =
        [(merge.patch_merge, "merge"), (merge.patch_replace, "replace"), (merge.patch_retain_keys, "retainKeys")];
    let strategies: Vec<&str> = strategies.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    if !strategies.is_empty() {
        set("patch-strategy", strategies.join(",").into());
    }
    if let Some(key) = merge.patch_key {
        set("patch-merge-key", key.into());
    }
    extensions
}
