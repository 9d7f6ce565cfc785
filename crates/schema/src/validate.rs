//! The same checks as decoding, on a document that is in memory already, such as the result of a patch.
//!
//! Fields are visited in the order of their names.

use serde_json::Value;

use crate::decode::{Decoded, is_unset, unless_null};
use crate::leaf;
use crate::problems::{DecodeError, FieldValidation, Path, Problems};
use crate::schema::{Schema, Shape, Struct};

/// Checks types, drops unknown fields and nulls, and makes values canonical.
pub fn validate_fields(mut value: Value, schema: Schema<'_>, mode: FieldValidation) -> Result<Decoded, DecodeError> {
    let mut problems = Problems::default();
    visit(&mut value, schema, &Path::ROOT, &mut problems);
    Ok(Decoded { value, warnings: problems.finish(mode)? })
}

fn visit(value: &mut Value, schema: Schema<'_>, path: &Path<'_>, problems: &mut Problems) {
    match (schema.shape(), &mut *value) {
        (Shape::Struct(fields), Value::Object(_)) => structure(value, fields, path, problems),
        (Shape::Map(values), Value::Object(entries)) => {
            for (key, value) in entries.iter_mut() {
                item(value, values, &path.key(key), problems);
            }
        }
        (Shape::List(items), Value::Array(list)) => {
            for (index, value) in list.iter_mut().enumerate() {
                item(value, items, &path.index(index), problems);
            }
        }
        (Shape::Json | Shape::Untyped, _) | (_, Value::Null) => {}
        (_, Value::Object(_) | Value::Array(_)) | (Shape::Struct(_) | Shape::Map(_) | Shape::List(_), _) => {
            problems.mismatch(path, leaf::go_kind(value), schema);
        }
        _ => leaf::check(value, None, schema, path, problems),
    }
}

fn item(value: &mut Value, schema: Schema<'_>, path: &Path<'_>, problems: &mut Problems) {
    visit(value, schema, path, problems);
    if value.is_null() {
        *value = unless_null(Value::Null, schema);
    }
}

fn structure(value: &mut Value, fields: Struct<'_>, path: &Path<'_>, problems: &mut Problems) {
    let Value::Object(object) = value else { return };
    object.retain(|name, value| match fields.field(name) {
        Some((name, field)) => {
            visit(value, field, &path.field(name, fields.go_struct()), problems);
            !is_unset(name, value, field)
        }
        None => {
            if !fields.keeps_unknown() {
                problems.unknown(path, name);
            }
            fields.keeps_unknown()
        }
    });
}
