//! Decodes objects without `metadata.managedFields`, and conditions without a time.
//!
//! Who owns which field is half of most objects and takes more memory than all the rest while it is decoded; nobody who
//! reads a cache asks for it. A condition of `meta.k8s.io` always has the time of its last transition here, but a client
//! written in Go that sets none sends null, which servers keep: one such object must not stop the watch of its kind.
//! Invariant: everything else is decoded as ever, what is called `managedFields` elsewhere included.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::CowStrDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;

/// Decodes an object without who owns its fields.
pub(crate) fn deserialize<'de, K, D>(deserializer: D) -> Result<K, D::Error>
where
    K: Deserialize<'de>,
    D: Deserializer<'de>,
{
    K::deserialize(Within { inner: deserializer, part: Part::Object })
}

/// The time that nobody set, as Go writes it.
const NEVER: &str = "0001-01-01T00:00:00Z";
const TRANSITION: &str = "lastTransitionTime";

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Object,
    Metadata,
    Status,
    /// The list in the status.
    Conditions,
    /// One of them, of whatever type.
    Element,
    /// One of `meta.k8s.io`.
    Condition,
}

impl Part {
    /// What a field of this part is, where that matters.
    fn field(self, name: &str) -> Option<Self> {
        match (self, name) {
            (Self::Object, "metadata") => Some(Self::Metadata),
            (Self::Object, "status") => Some(Self::Status),
            (Self::Status, "conditions") => Some(Self::Conditions),
            _ => None,
        }
    }
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
        let part = match (self.part, name) {
            (Part::Element, "Condition") => Part::Condition,
            (Part::Element, _) => return self.inner.deserialize_struct(name, fields, visitor),
            (part, _) => part,
        };
        self.inner.deserialize_struct(name, fields, Within { inner: visitor, part })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(Within { inner: visitor, part: self.part })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_newtype_struct(name, Within { inner: visitor, part: self.part })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_seq(Within { inner: visitor, part: self.part })
    }

    // None of the parts is any of these.
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct enum identifier ignored_any
    }
}

/// What has no parts is handed on.
macro_rules! hand_on {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$visit(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Within<V> {
    type Value = V::Value;

    hand_on! {
        visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128, visit_f64: f64,
        visit_str: &str, visit_borrowed_str: &'de str, visit_string: String
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let time = (self.part == Part::Condition).then(|| NEVER.to_owned());
        self.inner.visit_map(Fields { inner: map, part: self.part, next: None, time, in_time: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Elements(seq))
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

/// The elements of a list of conditions.
struct Elements<A>(A);

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Within { inner: seed, part: Part::Element })
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

/// The fields of a part, those left out that are not wanted.
struct Fields<A> {
    inner: A,
    part: Part,
    /// What the value is whose name was just given.
    next: Option<Part>,
    /// The time of a condition that has not been given yet.
    time: Option<String>,
    in_time: bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        if std::mem::take(&mut self.in_time) {
            return Ok(None);
        }
        while let Some(Name(name)) = self.inner.next_key()? {
            if self.part == Part::Metadata && name == "managedFields" {
                self.inner.next_value::<IgnoredAny>()?;
                continue;
            }
            if self.part == Part::Condition && name == TRANSITION {
                if let Some(time) = self.inner.next_value()? {
                    self.time = Some(time);
                }
                continue;
            }
            self.next = self.part.field(&name);
            return seed.deserialize(CowStrDeserializer::new(name)).map(Some);
        }
        // A condition's time comes last.
        self.in_time = self.time.is_some();
        match self.in_time {
            true => seed.deserialize(CowStrDeserializer::new(Cow::Borrowed(TRANSITION))).map(Some),
            false => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        if self.in_time
            && let Some(time) = self.time.take()
        {
            return seed.deserialize(Value::String(time)).map_err(A::Error::custom);
        }
        match self.next.take() {
            Some(part) => self.inner.next_value_seed(Within { inner: seed, part }),
            None => self.inner.next_value_seed(seed),
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
    use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
    use kube::core::{DynamicObject, PartialObjectMeta};
    use serde::de::DeserializeOwned;
    use serde_json::json;

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
    fn what_a_status_is_stays_whatever_it_is() {
        let statuses = [json!(null), json!("on"), json!(true), json!(-7), json!(7.5), json!([1, {"conditions": 2}])];
        let conditions = [json!(null), json!("x"), json!({"a": null}), json!(["x", 7, null, {"type": "A", "x": [1]}])];
        let nested = conditions.into_iter().map(|conditions| json!({"conditions": conditions, "z": {"metadata": 1}}));
        for status in statuses.into_iter().chain(nested) {
            check::<DynamicObject>(&with_owners(json!({"apiVersion": "a/v1", "kind": "Web", "status": status})));
            check::<ConfigMap>(&with_owners(json!({"status": status})));
        }
        let condition = json!({"type": "Ready", "status": "True", "lastTransitionTime": null});
        check::<Pod>(&with_owners(json!({"status": {"conditions": [condition], "phase": "Running"}})));
        check::<Pod>(&with_owners(json!({"status": {"conditions": null}})));
    }

    #[test]
    fn a_condition_without_a_time_was_never_anything_else() {
        let check = |time: Value, expected: &str| {
            let mut condition = json!({"type": "A", "status": "True", "reason": "R", "message": "m"});
            if time != json!("absent") {
                condition["lastTransitionTime"] = time;
            }
            let service = json!({"metadata": {"name": "a"}, "status": {"conditions": [condition, condition]}});
            let from_text = decode::<Service>(&service.to_string()).unwrap();
            assert_eq!(deserialize::<Service, _>(service).unwrap(), from_text);
            let conditions = from_text.status.and_then(|status| status.conditions).expect("it has some");
            assert_eq!(conditions.len(), 2);
            for condition in conditions {
                assert_eq!(condition.last_transition_time.0.to_string(), expected);
                assert_eq!((condition.type_.as_str(), condition.message.as_str()), ("A", "m"));
            }
        };
        check(json!(null), "0001-01-01T00:00:00Z");
        check(json!("absent"), "0001-01-01T00:00:00Z");
        check(json!("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05Z");
        let broken = r#"{"status": {"conditions": [{"lastTransitionTime": "soon"}]}}"#;
        assert!(decode::<Service>(broken).is_err());
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
