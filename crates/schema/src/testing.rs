//! Generated documents for property tests.

use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::facts::{Content, FieldType, Slot, Type, type_by_name};

/// Documents without null, a few levels deep, with few different keys so that they overlap.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    let tree = leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    });
    prop::collection::btree_map("[a-d]", tree, 0..4).prop_map(|entries| Value::Object(entries.into_iter().collect()))
}

/// Objects of any type, made from the facts: canonical, so that they come back from every form unchanged.
pub(crate) struct Samples {
    state: u64,
    depth: usize,
}

impl Samples {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed, depth: 0 }
    }

    /// SplitMix64.
    fn next(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.next(choices.len() as u64)).unwrap()]
    }

    /// An object of the type, with every field up to a depth, and some of them below.
    pub(crate) fn object(&mut self, ty: &Type) -> Value {
        let mut object = Map::new();
        self.depth += 1;
        self.fields(ty, ty.message.unwrap_or_default(), &mut object);
        self.depth -= 1;
        Value::Object(object)
    }

    fn fields(&mut self, ty: &Type, slots: &[Slot], object: &mut Map<String, Value>) {
        for slot in slots {
            match slot.content {
                Content::Inline(inner) => self.fields(ty, inner, object),
                Content::Field { index, omitempty, .. } => {
                    let field = &ty.fields[usize::from(index)];
                    if self.depth > 5 || (self.depth > 2 && self.next(3) == 0) {
                        continue;
                    }
                    let value = self.value(&field.ty);
                    let is_zero = [Value::from(false), Value::from(0), Value::from("")].contains(&value);
                    if !(omitempty && is_zero) {
                        object.insert(field.name.to_owned(), value);
                    }
                }
            }
        }
    }

    fn value(&mut self, ty: &FieldType) -> Value {
        match ty {
            FieldType::Boolean => (self.next(2) == 0).into(),
            FieldType::Int32 => self.pick(&[0, 1, -1, 127, 128, i32::MAX, i32::MIN]).into(),
            FieldType::Int64 => self.pick(&[0, 1, -1, 300, i64::MAX, i64::MIN]).into(),
            FieldType::Double => self.pick(&[0.5, -2.25, 1e300]).into(),
            FieldType::String => {
                self.pick(&["", "a", "ünïcode \u{1f980} and more than one hundred and twenty-eight bytes"]).into()
            }
            FieldType::Bytes => self.pick(&["", "AA==", "/+8BAgM="]).into(),
            FieldType::Time => {
                self.pick(&["1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "2026-01-02T03:04:05Z"]).into()
            }
            FieldType::MicroTime => self.pick(&["1969-12-31T23:59:59.000001Z", "2026-01-02T03:04:05.999999Z"]).into(),
            FieldType::Quantity => self.pick(&["0", "100m", "1Gi", "-5"]).into(),
            FieldType::IntOrString => match self.next(2) {
                0 => self.pick(&[0, 80, -1]).into(),
                _ => self.pick(&["", "50%"]).into(),
            },
            FieldType::Json(definition) => self.json(definition),
            FieldType::Object(ty) => self.object(ty),
            FieldType::List(item) => (0..=self.next(2)).map(|_| self.value(item)).collect(),
            FieldType::Map(value) => {
                let entries = (0..=self.next(2)).map(|index| (format!("key-{index}"), self.value(value)));
                Value::Object(entries.collect())
            }
        }
    }

    fn json(&mut self, definition: &str) -> Value {
        let schema = type_by_name("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
        match (definition.rsplit('.').next().unwrap(), self.next(2)) {
            ("JSONSchemaPropsOrBool", 0) => (self.next(2) == 0).into(),
            ("JSONSchemaPropsOrStringArray", 0) => serde_json::json!(["a", ""]),
            ("JSONSchemaPropsOrArray", 0) => Value::Array(vec![self.object(schema)]),
            (name, _) if name.starts_with("JSONSchemaProps") => self.object(schema),
            ("JSON", 0) => serde_json::json!([1, "a", {"b": false}]),
            _ => serde_json::json!({"f:metadata": {"f:name": {}}}),
        }
    }
}
