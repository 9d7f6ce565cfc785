//! Reads the `components.schemas` of OpenAPI v3 documents into a small model, grouped by Go package.
//!
//! Keeps facts only. A construct this does not know stops the generator, so that nothing is lost silently.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Types by name, grouped by module name (`core_v1`).
pub(super) type Packages = BTreeMap<String, BTreeMap<String, Type>>;

/// Kinds that every group version repeats; only the core one is kept.
const IN_EVERY_GROUP: [&str; 2] = ["DeleteOptions", "WatchEvent"];

/// One `type: object` definition.
#[derive(Debug, PartialEq)]
pub(super) struct Type {
    pub(super) name: String,
    pub(super) atomic: bool,
    pub(super) kinds: Vec<(String, String, String)>,
    pub(super) unions: Vec<Union>,
    pub(super) fields: BTreeMap<String, Field>,
}

/// `x-kubernetes-unions`.
#[derive(Debug, PartialEq)]
pub(super) struct Union {
    pub(super) discriminator: Option<String>,
    pub(super) fields: Vec<(String, String)>,
}

/// One property.
#[derive(Debug, PartialEq)]
pub(super) struct Field {
    pub(super) ty: FieldType,
    pub(super) required: bool,
    pub(super) default: Option<Value>,
    pub(super) merge: Merge,
}

/// How a property merges, as the `x-kubernetes-*` extensions say.
#[derive(Debug, Default, PartialEq, Clone)]
pub(super) struct Merge {
    pub(super) list_type: Option<String>,
    pub(super) list_keys: Vec<String>,
    pub(super) map_type: Option<String>,
    pub(super) patch_strategy: Vec<String>,
    pub(super) patch_key: Option<String>,
}

/// The type of a property.
#[derive(Debug, PartialEq)]
pub(super) enum FieldType {
    /// A scalar, by the name of its Rust variant.
    Scalar(&'static str),
    /// JSON that is kept as it is, with the definition it is documented as.
    Json(String),
    Object(String),
    List(Box<FieldType>),
    Map(Box<FieldType>),
}

/// Reads every document in the folder.
pub(super) fn read(folder: &Path) -> Result<Packages> {
    let mut definitions: BTreeMap<String, Value> = BTreeMap::new();
    let mut paths: Vec<_> = fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|ext| ext == "json")) {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let document: Value = serde_json::from_slice(&bytes).with_context(|| format!("parsing {}", path.display()))?;
        if let Some(schemas) = document.pointer("/components/schemas").and_then(Value::as_object) {
            for (name, schema) in schemas {
                definitions.entry(name.clone()).or_insert_with(|| schema.clone());
            }
        }
    }
    let mut packages = Packages::new();
    for (name, schema) in &definitions {
        if special(name).is_some() {
            continue;
        }
        let ty = read_type(name, schema).with_context(|| format!("in {name}"))?;
        packages.entry(module_of(name)).or_default().insert(name.clone(), ty);
    }
    Ok(packages)
}

/// `io.k8s.api.core.v1.Pod` lies in `core_v1`.
pub(super) fn module_of(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let package = &parts[parts.len().saturating_sub(3)..parts.len() - 1];
    match package {
        ["pkg", last] => (*last).to_owned(),
        _ => package.join("_").replace('-', "_"),
    }
}

/// Definitions that are not structs but scalars or free JSON.
fn special(name: &str) -> Option<FieldType> {
    let short = name.rsplit('.').next().unwrap_or(name);
    Some(match (name.starts_with("io.k8s.apimachinery"), short) {
        (true, "Quantity") => FieldType::Scalar("Quantity"),
        (true, "Time") => FieldType::Scalar("Time"),
        (true, "MicroTime") => FieldType::Scalar("MicroTime"),
        (true, "IntOrString") => FieldType::Scalar("IntOrString"),
        (true, "RawExtension" | "FieldsV1" | "Patch")
        | (false, "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray") => {
            FieldType::Json(name.to_owned())
        }
        _ => return None,
    })
}

fn read_type(name: &str, schema: &Value) -> Result<Type> {
    let object = schema.as_object().context("a definition is an object")?;
    known_keys(
        object,
        &[
            "description",
            "properties",
            "required",
            "type",
            "x-kubernetes-group-version-kind",
            "x-kubernetes-map-type",
            "x-kubernetes-unions",
        ],
    )?;
    if text(schema, "type").as_deref() != Some("object") {
        bail!("neither an object nor a known special type");
    }
    let required = texts(schema, "required");
    let mut fields = BTreeMap::new();
    for (field, property) in schema["properties"].as_object().into_iter().flatten() {
        let read = read_field(property, required.contains(field)).with_context(|| format!("in field {field}"))?;
        fields.insert(field.clone(), read);
    }
    Ok(Type {
        name: name.to_owned(),
        atomic: text(schema, "x-kubernetes-map-type").as_deref() == Some("atomic"),
        kinds: read_kinds(name, schema),
        unions: read_unions(schema),
        fields,
    })
}

fn read_kinds(name: &str, schema: &Value) -> Vec<(String, String, String)> {
    let everywhere = IN_EVERY_GROUP.iter().any(|kind| name.ends_with(&format!(".{kind}")));
    let entries = schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten();
    let kind = |entry: &Value, key: &str| text(entry, key).unwrap_or_default();
    let mut kinds: Vec<_> =
        entries.map(|entry| (kind(entry, "group"), kind(entry, "version"), kind(entry, "kind"))).collect();
    if everywhere {
        kinds.retain(|(group, version, _)| group.is_empty() && version == "v1");
    }
    kinds
}

fn read_unions(schema: &Value) -> Vec<Union> {
    let entries = schema["x-kubernetes-unions"].as_array().into_iter().flatten();
    let fields = |entry: &Value| {
        let fields = entry["fields-to-discriminateBy"].as_object().into_iter().flatten();
        fields.map(|(field, value)| (field.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
    };
    entries.map(|entry| Union { discriminator: text(entry, "discriminator"), fields: fields(entry) }).collect()
}

fn read_field(property: &Value, required: bool) -> Result<Field> {
    let object = property.as_object().context("a property is an object")?;
    known_keys(
        object,
        &[
            "$ref",
            "additionalProperties",
            "allOf",
            "default",
            "description",
            "format",
            "items",
            "type",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-list-type",
            "x-kubernetes-map-type",
            "x-kubernetes-patch-merge-key",
            "x-kubernetes-patch-strategy",
        ],
    )?;
    let strategy = text(property, "x-kubernetes-patch-strategy").unwrap_or_default();
    Ok(Field {
        ty: read_field_type(property)?,
        required,
        default: property.get("default").cloned(),
        merge: Merge {
            list_type: text(property, "x-kubernetes-list-type"),
            list_keys: texts(property, "x-kubernetes-list-map-keys"),
            map_type: text(property, "x-kubernetes-map-type"),
            patch_strategy: strategy.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            patch_key: text(property, "x-kubernetes-patch-merge-key"),
        },
    })
}

fn read_field_type(property: &Value) -> Result<FieldType> {
    if let Some(reference) = text(&property["allOf"][0], "$ref").or_else(|| text(property, "$ref")) {
        let name = reference.rsplit('/').next().unwrap_or_default().to_owned();
        return Ok(special(&name).unwrap_or(FieldType::Object(name)));
    }
    let ty = text(property, "type");
    let format = text(property, "format");
    Ok(match (ty.as_deref(), format.as_deref()) {
        (Some("string"), None) => FieldType::Scalar("String"),
        (Some("string"), Some("byte")) => FieldType::Scalar("Bytes"),
        (Some("integer"), Some("int32")) => FieldType::Scalar("Int32"),
        (Some("integer"), Some("int64")) => FieldType::Scalar("Int64"),
        (Some("number"), Some("double")) => FieldType::Scalar("Double"),
        (Some("boolean"), None) => FieldType::Scalar("Boolean"),
        (Some("array"), None) => FieldType::List(Box::new(read_field_type(&property["items"])?)),
        (Some("object"), None) if property.get("additionalProperties").is_some() => {
            FieldType::Map(Box::new(read_field_type(&property["additionalProperties"])?))
        }
        other => bail!("unknown type and format {other:?}"),
    })
}

fn known_keys(object: &serde_json::Map<String, Value>, known: &[&str]) -> Result<()> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => bail!("unknown key {key}"),
        None => Ok(()),
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    let items = value.get(key).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}
