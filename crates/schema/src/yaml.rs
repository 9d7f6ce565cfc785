//! YAML documents as JSON values.
//!
//! Keys become text and duplicates are noted; the last one wins. Anchors are expanded by the parser, which bounds them.
//!
//! DIVERGES: upstream reads YAML 1.1, where a plain `yes`, `on` or `y` is a boolean; this reads YAML 1.2, where it is text.
//! The parser says where something stands only in errors, so a document with duplicates is read once more for each of them;
//! where that would cost too much, the line is left out. An alias counts as standing where its anchor does.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::decode::{BodyFormat, Untyped};
use crate::problems::{DecodeError, quote};

/// The parser looks at every open bracket again for each word, so that brackets times bytes is what a document may cost.
const MAX_COST: usize = 1 << 29;
/// How many bytes are read again to find the lines of duplicates.
const MAX_REREAD: usize = 1 << 22;

/// Reads one document. An empty one is `null`.
pub(crate) fn read(bytes: &[u8]) -> Result<Untyped, DecodeError> {
    let brackets = bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if brackets > crate::lexer::MAX_DEPTH && brackets.saturating_mul(bytes.len()) > MAX_COST {
        let text = "error converting YAML to JSON: yaml: the document has too many brackets for its length";
        return Err(DecodeError::Syntax(text.to_owned()));
    }
    let mut reading = Reading::default();
    let value = reading
        .value(bytes)
        .map_err(|error| DecodeError::Syntax(format!("error converting YAML to JSON: yaml: {error}")))?;
    let affordable = MAX_REREAD / bytes.len().max(1);
    let duplicates = reading.duplicates.iter().enumerate().map(|(count, (ordinal, key))| {
        let line = if count < affordable { line_of_duplicate(bytes, *ordinal) } else { None };
        let line = line.map_or_else(String::new, |line| format!("line {line}: "));
        format!("{line}key {} already set in map", quote(key))
    });
    Ok(Untyped { value, duplicates: duplicates.collect(), format: BodyFormat::Yaml })
}

/// All duplicates of a document as one error.
pub(crate) fn strict_error(duplicates: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  "))
}

/// The line, from 1, on which the value of a duplicate begins.
fn line_of_duplicate(bytes: &[u8], ordinal: usize) -> Option<usize> {
    let mut reading = Reading { stop_at: Some(ordinal), ..Reading::default() };
    Some(reading.value(bytes).err()?.location()?.line())
}

/// One pass over a document.
#[derive(Default)]
struct Reading {
    /// How many keys stood in their map already.
    found: usize,
    /// These keys as they end, each with its place in the order in which they begin.
    duplicates: Vec<(usize, String)>,
    /// The duplicate whose value is an error.
    stop_at: Option<usize>,
}

impl Reading {
    fn value(&mut self, bytes: &[u8]) -> Result<Value, serde_yaml::Error> {
        match serde_yaml::Deserializer::from_slice(bytes).next() {
            Some(document) => Node { reading: self, depth: 0 }.deserialize(document),
            None => Ok(Value::Null),
        }
    }
}

/// Takes no value at all: the parser says where it stands.
struct Stop;

impl<'de> DeserializeSeed<'de> for Stop {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Stop {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no value")
    }
}

struct Node<'d> {
    reading: &'d mut Reading,
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
        Ok(Node { reading: self.reading, depth: self.depth + 1 })
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
            if !object.contains_key(&key) {
                let value = entries.next_value_seed(self.below()?)?;
                object.insert(key, value);
                continue;
            }
            let ordinal = self.reading.found;
            self.reading.found += 1;
            if self.reading.stop_at == Some(ordinal) {
                return entries.next_value_seed(Stop);
            }
            let value = entries.next_value_seed(self.below()?)?;
            object.insert(key.clone(), value);
            self.reading.duplicates.push((ordinal, key));
        }
        Ok(Value::Object(object))
    }
}

/// A key: numbers and booleans are written out, as upstream's conversion does.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(Node { reading: &mut Reading::default(), depth: 0 })?;
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
    #[test]
    fn duplicates_have_the_lines_of_their_values() {
        let document =
            b"\na: 1\na: 2\nb:\n- c: {d: 1,\n    d: 2}\n  e:\n    f: 1\n  e:\n    f: 2\n    f: 3\n1: a\n1: b\n";
        let read = read(document).unwrap();
        let lines = [("3", "a"), ("6", "d"), ("11", "f"), ("10", "e"), ("13", "1")];
        let expected = lines.map(|(line, key)| format!("line {line}: key \"{key}\" already set in map"));
        assert_eq!(read.duplicates, expected);
        assert_eq!(read.value["a"], 2);
    }

    #[test]
    fn lines_of_duplicates_cost_no_more_than_they_may() {
        let document = format!("a: 1\n{}text: {}\n", "a: 2\n".repeat(10), "x".repeat(MAX_REREAD / 4));
        let read = read(document.as_bytes()).unwrap();
        let known = read.duplicates.iter().filter(|text| text.starts_with("line ")).count();
        assert_eq!((known, read.duplicates.len()), (3, 10));
    }
}
