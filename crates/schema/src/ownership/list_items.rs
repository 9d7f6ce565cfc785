//! Which path element stands for a list item.

use std::borrow::Cow;

use serde_json::Value;

use super::path_element::{PathElement, Scalar};
use crate::facts::ListType;
use crate::schema::{Schema, Shape};

/// The element of an item of a set or map list, or upstream's text of why there is none. Key fields that are absent count
/// with their default.
pub(super) fn element_of<'v>(list: Schema<'_>, items: Schema<'_>, item: &'v Value) -> Result<PathElement<'v>, String> {
    if list.list_type() == ListType::Set {
        return match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            scalar => Ok(PathElement::Value(Scalar::of(scalar))),
        };
    }
    let object = match item {
        Value::Object(object) => object,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut key = Vec::new();
    for name in list.list_keys().iter() {
        if let Some((stored, value)) = object.get_key_value(name) {
            key.push((Cow::Borrowed(stored.as_str()), Scalar::of(value)));
        } else if let Some(default) = key_default(items, name) {
            key.push((Cow::Owned(name.to_owned()), default));
        }
    }
    if key.is_empty() {
        let names: Vec<String> = list.list_keys().iter().map(|name| format!("\"{name}\"")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values \
             for any key fields)",
            names.join(" ")
        ));
    }
    key.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(PathElement::Key(key))
}

fn key_default(items: Schema<'_>, name: &str) -> Option<Scalar<'static>> {
    let Shape::Struct(fields) = items.shape() else { return None };
    let (_, field) = fields.field(name)?;
    Some(match field.key_default()? {
        Value::String(text) => Scalar::Text(Cow::Owned(text)),
        Value::Number(number) => Scalar::Integer(number.as_i64().unwrap_or_default()),
        Value::Bool(flag) => Scalar::Flag(flag),
        _ => return None,
    })
}
