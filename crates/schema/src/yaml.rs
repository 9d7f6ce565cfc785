//! YAML documents as JSON values.
//!
//! Keys become text and duplicates are noted; the last one wins. Anchors are expanded by the parser, which bounds them.
//!
//! DIVERGES: upstream reads YAML 1.1, where a plain `yes`, `on` or `y` is a boolean; this reads YAML 1.2, where it is text.
//! Upstream's texts about duplicate keys also name the line.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::decode::Untyped;
use crate::problems::DecodeError;

/// The parser looks at every open bracket again for each word, so that brackets times bytes is what a document may cost.
const MAX_COST: usize = 1 << 29;

/// Reads one document. An empty one is `null`.
pub(crate) fn read(bytes: &[u8]) -> Result<Untyped, DecodeError> {
    let brackets = bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if brackets > crate::lexer::MAX_DEPTH && brackets.saturating_mul(bytes.len()) > MAX_COST {
        let text = "error converting YAML to JSON: yaml: the document has too many brackets for its length";
        return Err(DecodeError::Syntax(text.to_owned()));
    }
    let mut duplicates = Vec::new();
    let yaml_error =
        |error: serde_yaml::Error| DecodeError::Syntax(format!("error converting YAML to JSON: yaml: {error}"));
    let mut documents = serde_yaml::Deserializer::from_slice(bytes);
    let Some(document) = documents.next() else {
        return Ok(Untyped { value: Value::Null, duplicates });
    };
    let value = Node { duplicates: &mut duplicates, depth: 0 }.deserialize(document).map_err(yaml_error)?;
    Ok(Untyped { value, duplicates })
}

struct Node<'d> {
    duplicates: &'d mut Vec<String>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Node<'_> {
    fn below<E: serde::de::Error>(&mut self) -> Result<Node<'_>, E> {
        if self.depth >= crate::lexer::MAX_DEPTH {
            return Err(E::custom("exceeded max depth"));
        }
        Ok(Node { duplicates: self.duplicates, depth: self.depth + 1 })
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.below()?)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(Key(key)) = entries.next_key()? {
            let value = entries.next_value_seed(self.below()?)?;
            if object.insert(key.clone(), value).is_some() {
                self.duplicates.push(format!("yaml: unmarshal errors:\n  key \"{key}\" already set in map"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// A key: numbers and booleans are written out, as upstream's conversion does.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut ignored = Vec::new();
        let value = deserializer.deserialize_any(Node { duplicates: &mut ignored, depth: 0 })?;
        match value {
            Value::String(text) => Ok(Key(text)),
            Value::Number(_) | Value::Bool(_) | Value::Null => Ok(Key(value.to_string())),
            _ => Err(serde::de::Error::custom("a map key is a map or list")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_cost_no_more_than_they_may() {
        let error = read(&b"[".repeat(3 << 20)).unwrap_err();
        assert!(error.to_string().ends_with("too many brackets for its length"), "{error}");
        assert!(read(&b"- [a, {b: c}]\n".repeat(1000)).is_ok());
        assert!(read(&b"- [a]\n".repeat(400)).is_ok());
    }
}
