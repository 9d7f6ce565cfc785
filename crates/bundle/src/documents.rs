//! Documents in JSON and YAML, and the objects in them, one after the other as they are read.
//!
//! A cluster's lists are hundreds of megabytes: none is in memory as a tree of values. Not aware of what is worth keeping.
//! Invariant: what comes before a broken part counts.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

const ITEMS: &str = "\nitems:\n";

/// Who does something with objects.
pub(crate) trait Keeper {
    /// Whether it wants to see the texts of a list's items, which costs those that it does not pass over a second reading.
    fn is_glancing(&self) -> bool;

    /// Whether a text was enough. `kind` is of what does not say its own.
    fn pass(&mut self, kind: Option<&str>, text: &str) -> bool;

    /// Takes an object and its kind.
    fn keep(&mut self, kind: &str, fields: Map<String, Value>);
}

/// JSON documents that follow each other, up to the first that is none; whether there was one. `kind` is of what does not
/// say its own.
pub(crate) fn read_json(text: &str, kind: Option<&str>, keeper: &mut dyn Keeper) -> bool {
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut found = false;
    while reader.end().is_err() {
        let objects = Objects { kind, keeper: &mut *keeper, found: &mut found };
        if objects.deserialize(&mut reader).is_err() {
            break;
        }
    }
    found
}

/// YAML documents that follow each other; a list's items each by itself, which is what makes a large one readable.
pub(crate) fn read_yaml(text: &str, kind: Option<&str>, keeper: &mut dyn Keeper) {
    for document in split_before(text, |line| line.trim_end() == "---") {
        let Some((head, items)) = items_of(document) else {
            if let Some(document) = yaml(document) {
                collect(document, kind, keeper);
            }
            continue;
        };
        let own = yaml(&head).and_then(|head| head["kind"].as_str().map(str::to_owned));
        let kind = kind_of_items(own.as_deref(), kind);
        items.iter().filter_map(|item| yaml(item)).for_each(|list| collect(list, kind, keeper));
    }
}

fn yaml(text: &str) -> Option<Value> {
    let value = Value::deserialize(serde_yaml::Deserializer::from_str(text).next()?).ok()?;
    (value.is_object() || value.is_array()).then_some(value)
}

/// Takes a list that is written in blocks apart: what it says of itself, and its items, each as a list of one.
fn items_of(document: &str) -> Option<(String, Vec<&str>)> {
    let at = document.find(ITEMS)?;
    let rest = &document[at + ITEMS.len()..];
    let is_of_items = |line: &str| line.starts_with(['-', ' ', '#']) || line.trim().is_empty();
    let end = split_before(rest, |line| !is_of_items(line)).first().map_or(0, |items| items.len());
    // Where items stand further in, they are read together.
    let items = split_before(&rest[..end], |line| line.starts_with('-'));
    Some((format!("{}\n{}", &document[..at], &rest[end..]), items))
}

/// A text in parts, of which all but the first begin with such a line; no part is empty.
fn split_before(text: &str, is_start: impl Fn(&str) -> bool) -> Vec<&str> {
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        if at > start && is_start(line) {
            parts.push(&text[start..at]);
            start = at;
        }
        at += line.len();
    }
    if at > start {
        parts.push(&text[start..]);
    }
    parts
}

/// The kind of items that do not say it: their list's, else the file's.
fn kind_of_items<'a>(list: Option<&'a str>, of_file: Option<&'a str>) -> Option<&'a str> {
    list.and_then(|list| list.strip_suffix("List")).filter(|kind| !kind.is_empty()).or(of_file)
}

/// The objects of a document that has been read.
fn collect(document: Value, kind: Option<&str>, keeper: &mut dyn Keeper) {
    match document {
        Value::Array(items) => items.into_iter().for_each(|item| collect(item, kind, keeper)),
        Value::Object(mut fields) => {
            let own = fields.get("kind").and_then(Value::as_str).map(str::to_owned);
            match fields.remove("items") {
                Some(items) => collect(items, kind_of_items(own.as_deref(), kind), keeper),
                None => drop(object(fields, kind, keeper)),
            }
        }
        _ => {}
    }
}

/// Gives an object on; whether it is one.
fn object(fields: Map<String, Value>, kind: Option<&str>, keeper: &mut dyn Keeper) -> bool {
    let own = fields.get("kind").and_then(Value::as_str).map(str::to_owned);
    let Some(kind) = own.as_deref().or(kind) else { return false };
    let is_object = fields.get("metadata").is_some_and(Value::is_object);
    if is_object {
        keeper.keep(kind, fields);
    }
    is_object
}

/// Gives objects on while they are read.
struct Objects<'a> {
    /// Of what does not say its own.
    kind: Option<&'a str>,
    keeper: &'a mut dyn Keeper,
    /// Whether there was one.
    found: &'a mut bool,
}

impl Objects<'_> {
    fn of<'b>(&'b mut self, kind: Option<&'b str>) -> Objects<'b> {
        Objects { kind, keeper: &mut *self.keeper, found: &mut *self.found }
    }

    /// An item of a list by its text, and in full only where that is not enough.
    fn item<E: Error>(&mut self, text: &str) -> Result<(), E> {
        let kind = self.kind;
        if self.keeper.pass(kind, text) {
            *self.found = true;
            return Ok(());
        }
        self.of(kind).deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Objects<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Objects<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of the API or a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let kind = self.kind;
        loop {
            let has_next = if self.keeper.is_glancing() {
                items.next_element::<&RawValue>()?.map(|item| self.item(item.get())).transpose()?
            } else {
                items.next_element_seed(self.of(kind))?
            };
            if has_next.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let (mut fields, mut waiting, mut is_list) = (Map::new(), None, false);
        while let Some(name) = map.next_key::<String>()? {
            if name != "items" {
                fields.insert(name, map.next_value()?);
                continue;
            }
            is_list = true;
            let own = fields.get("kind").and_then(Value::as_str).map(str::to_owned);
            match kind_of_items(own.as_deref(), self.kind) {
                None if own.is_none() => waiting = Some(map.next_value::<Value>()?),
                kind => map.next_value_seed(self.of(kind))?,
            }
        }
        // Items whose list says its kind after them.
        if let Some(items) = waiting {
            let own = fields.get("kind").and_then(Value::as_str);
            *self.found = true;
            collect(items, kind_of_items(own, None), self.keeper);
        } else if !is_list {
            *self.found |= object(fields, self.kind, self.keeper);
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}
