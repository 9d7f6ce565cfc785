//! Whether an applied configuration fits its type, in the words of upstream's typed values.
//!
//! Reports every place that does not fit; stops in a map at the first field that its type does not have.

use std::collections::BTreeSet;

use serde_json::Value;

use super::list_items::element_of;
use super::path_element::PathElement;
use crate::facts::ListType;
use crate::schema::{Schema, Shape};

/// The text of what does not fit, if anything.
pub(super) fn check(value: &Value, schema: Schema<'_>) -> Option<String> {
    let mut errors = Vec::new();
    visit(value, schema, &mut String::new(), &mut errors);
    match errors.as_slice() {
        [] => None,
        [error] => Some(error.clone()),
        several => Some(format!("errors:\n  {}", several.join("\n  "))),
    }
}

fn visit(value: &Value, schema: Schema<'_>, path: &mut String, errors: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let problem = match schema.shape() {
        Shape::Untyped | Shape::Json => None,
        Shape::Struct(_) | Shape::Map(_) => match value {
            Value::Object(_) => return entries(value, schema, path, errors),
            _ => Some(format!("expected map, got {}", plain(value))),
        },
        Shape::List(items) => match value {
            Value::Array(list) => return list_items(list, schema, items, path, errors),
            _ => Some(format!("expected list, got {}", plain(value))),
        },
        Shape::Boolean => (!value.is_boolean()).then(|| format!("expected boolean, got {}", plain(value))),
        Shape::Int32 | Shape::Int64 | Shape::Double => {
            (!value.is_number()).then(|| format!("expected numeric (int or float), got {}", go_type(value)))
        }
        Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime => {
            (!value.is_string()).then(|| format!("expected string, got {}", detailed(value)))
        }
        Shape::Quantity | Shape::IntOrString => {
            (value.is_object() || value.is_array()).then(|| format!("expected any scalar, got {}", plain(value)))
        }
    };
    if let Some(problem) = problem {
        report(path, &problem, errors);
    }
}

fn report(path: &str, problem: &str, errors: &mut Vec<String>) {
    errors.push(if path.is_empty() { problem.to_owned() } else { format!("{path}: {problem}") });
}

fn below(path: &mut String, element: &PathElement<'_>, visit: impl FnOnce(&mut String)) {
    use std::fmt::Write;
    let length = path.len();
    let _ = write!(path, "{element}");
    visit(path);
    path.truncate(length);
}

fn entries(value: &Value, schema: Schema<'_>, path: &mut String, errors: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let field = match schema.shape() {
            Shape::Map(values) => Some(values),
            Shape::Struct(fields) => match fields.field(name) {
                Some((_, field)) => Some(field),
                None => fields.keeps_unknown().then(Schema::untyped),
            },
            _ => None,
        };
        let mut unknown = false;
        below(path, &PathElement::Field(name.as_str().into()), |path| match field {
            Some(field) => visit(value, field, path, errors),
            None => {
                unknown = true;
                report(path, "field not declared in schema", errors);
            }
        });
        if unknown {
            return;
        }
    }
}

fn list_items(list: &[Value], schema: Schema<'_>, items: Schema<'_>, path: &mut String, errors: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, item) in list.iter().enumerate() {
        let element = if schema.list_type() == ListType::Atomic {
            PathElement::Index(i64::try_from(index).unwrap_or(i64::MAX))
        } else {
            match element_of(schema, items, item) {
                Ok(element) => element,
                Err(problem) => {
                    report(path, &format!("element {index}: {problem}"), errors);
                    return;
                }
            }
        };
        below(path, &element, |path| visit(item, items, path, errors));
        if let Some(twice) = seen.replace(element) {
            report(path, &format!("duplicate entries for key {twice}"), errors);
        }
    }
}

/// Go's `%T`.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Go's `%v` of the wrapper that upstream prints.
fn plain(value: &Value) -> String {
    fn inner(value: &Value) -> String {
        match value {
            Value::Null => "<nil>".to_owned(),
            Value::String(text) => text.clone(),
            Value::Array(items) => format!("[{}]", items.iter().map(inner).collect::<Vec<_>>().join(" ")),
            Value::Object(entries) => {
                let entries = entries.iter().map(|(key, value)| format!("{key}:{}", inner(value)));
                format!("map[{}]", entries.collect::<Vec<_>>().join(" "))
            }
            scalar => scalar.to_string(),
        }
    }
    format!("&{{{}}}", inner(value))
}

/// Go's `%#v` of the same.
fn detailed(value: &Value) -> String {
    fn inner(value: &Value) -> String {
        match value {
            Value::Null => "interface {}(nil)".to_owned(),
            Value::Array(items) => {
                format!("[]interface {{}}{{{}}}", items.iter().map(inner).collect::<Vec<_>>().join(", "))
            }
            Value::Object(entries) => {
                let entries =
                    entries.iter().map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), inner(value)));
                format!("map[string]interface {{}}{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
            scalar => scalar.to_string(),
        }
    }
    format!("&value.valueUnstructured{{Value:{}}}", inner(value))
}
