//! JSON as values of CEL, and back.

use std::collections::HashMap;

use cel::Value as Outcome;
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString};
use cel::common::value::Val;
use cel::objects::Key;
use serde_json::Value;

/// JSON as a value whose fields have the names that they have there.
pub fn of_json(value: &Value) -> Box<dyn Val> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(yes) => Box::new(CelBool::from(*yes)),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Box::new(CelInt::from(number)),
            None => Box::new(CelDouble::from(number.as_f64().unwrap_or_default())),
        },
        Value::String(text) => Box::new(CelString::from(text.clone())),
        Value::Array(list) => Box::new(CelList::from(list.iter().map(of_json).collect::<Vec<_>>())),
        Value::Object(fields) => {
            let entries = fields.iter().map(|(name, value)| (CelMapKey::String(name.clone().into()), of_json(value)));
            Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()))
        }
    }
}

/// A value as JSON; the error names what has none there.
pub fn to_json(value: &Outcome) -> Result<Value, String> {
    Ok(match value {
        Outcome::Null => Value::Null,
        Outcome::Bool(yes) => Value::from(*yes),
        Outcome::Int(number) => Value::from(*number),
        Outcome::UInt(number) => Value::from(*number),
        Outcome::Float(number) => Value::from(*number),
        Outcome::String(text) => Value::from(text.as_str()),
        Outcome::List(list) => Value::Array(list.iter().map(to_json).collect::<Result<_, _>>()?),
        Outcome::Map(map) => {
            let fields = map.map.iter().map(|(key, value)| match key {
                Key::String(name) => Ok((name.as_str().to_owned(), to_json(value)?)),
                key => Err(format!("a key must be a string: {key}")),
            });
            Value::Object(fields.collect::<Result<_, _>>()?)
        }
        other => return Err(format!("a value of type {} can't be part of an object", other.type_of())),
    })
}
