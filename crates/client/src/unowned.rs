//! Decodes objects without `metadata.managedFields`.
//!
//! Who owns which field is half of most objects and takes more memory than all the rest while it is decoded; nobody who
//! reads a cache asks for it. Invariant: everything else is decoded as ever, what is called `managedFields` elsewhere
//! included.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::CowStrDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Decodes an object without who owns its fields.
pub(crate) fn deserialize<'de, K, D>(deserializer: D) -> Result<K, D::Error>
where
    K: Deserialize<'de>,
    D: Deserializer<'de>,
{
    K::deserialize(Within { inner: deserializer, part: Part::Object })
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Object,
    Metadata,
}

/// What decodes, or is decoded into, a part of the object.
struct Within<T> {
    inner: T,
    part: Part,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Within<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Within { inner: visitor, part: self.part })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_map(Within { inner: visitor, part: self.part })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(name, fields, Within { inner: visitor, part: self.part })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(Within { inner: visitor, part: self.part })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_newtype_struct(name, Within { inner: visitor, part: self.part })
    }

    // Neither an object nor its metadata is any of these.
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Within<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Fields { inner: map, part: self.part, in_metadata: false })
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Within { inner: deserializer, part: self.part })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Within { inner: deserializer, part: self.part })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Within<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Within { inner: deserializer, part: self.part })
    }
}

/// The fields of a part, those left out that are not wanted.
struct Fields<A> {
    inner: A,
    part: Part,
    in_metadata: bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        while let Some(Name(name)) = self.inner.next_key()? {
            if self.part == Part::Metadata && name == "managedFields" {
                self.inner.next_value::<IgnoredAny>()?;
                continue;
            }
            self.in_metadata = self.part == Part::Object && name == "metadata";
            return seed.deserialize(CowStrDeserializer::new(name)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        match self.in_metadata {
            true => self.inner.next_value_seed(Within { inner: seed, part: Part::Metadata }),
            false => self.inner.next_value_seed(seed),
        }
    }
}

/// The name of a field, in its place where that is possible.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }

    fn visit_string<E: Error>(self, name: String) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Owned(name)))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use kube::core::{DynamicObject, PartialObjectMeta};
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn decode<K: DeserializeOwned>(text: &str) -> Result<K, serde_json::Error> {
        deserialize(&mut serde_json::Deserializer::from_str(text))
    }

    /// What is decoded is what is decoded of the same object without who owns its fields; from a tree as from text.
    fn check<K: DeserializeOwned + fmt::Debug>(value: &Value) {
        let mut plain = value.clone();
        plain["metadata"].as_object_mut().unwrap().remove("managedFields");
        let expected = format!("{:?}", serde_json::from_value::<K>(plain).unwrap());
        let from_text = decode::<K>(&value.to_string()).unwrap();
        assert_eq!(format!("{from_text:?}"), expected);
        let from_tree = deserialize::<Option<K>, _>(value.clone()).unwrap().expect("it is one");
        assert_eq!(format!("{from_tree:?}"), expected);
    }

    fn with_owners(mut value: Value) -> Value {
        value["metadata"]["managedFields"] = json!([{"manager": "a\"b", "operation": "Update", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:managedFields": {}}}}}]);
        value["metadata"]["name"] = json!("caf\u{e9} \"x\"");
        value["metadata"]["labels"] = json!({"managedFields": "stays", "a\nb": "c"});
        value
    }

    #[test]
    fn everything_but_who_owns_which_field_is_decoded() {
        check::<ConfigMap>(&with_owners(json!({"data": {"managedFields": "stays", "metadata": "too"}})));
        check::<Pod>(&with_owners(json!({"apiVersion": "v1", "kind": "Pod", "unknown": {"metadata": [1]},
            "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running"}})));
        let object = json!({"apiVersion": "example.com/v1", "kind": "Web", "managedFields": [1],
            "spec": {"metadata": {"managedFields": [2]}}, "other": null});
        check::<DynamicObject>(&with_owners(object));
        let partial = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata"});
        check::<PartialObjectMeta<DynamicObject>>(&with_owners(partial));
    }

    #[test]
    fn what_is_broken_is_refused_as_ever() {
        for text in ["", "[]", "7", "{\"metadata\": 7}", "{\"metadata\": {\"managedFields\": [}}", "{\"metadata\": {}"]
        {
            assert!(decode::<ConfigMap>(text).is_err(), "{text}");
        }
        assert!(decode::<Option<ConfigMap>>("null").unwrap().is_none());
    }
}
