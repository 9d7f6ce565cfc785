//! Merges what is applied into what is there.
//!
//! Nothing is removed by this; what only the live object has stays. Lists keep the live order unless the applied one says
//! otherwise.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::list_items::element_of;
use super::path_element::PathElement;
use crate::facts::ListType;
use crate::schema::{Schema, Shape};

/// The live object with the applied one on top.
pub(super) fn merge(live: &Value, applied: &Value, schema: Schema<'_>) -> Value {
    match (schema.shape(), live, applied) {
        (Shape::Struct(_) | Shape::Map(_) | Shape::Untyped | Shape::Json, _, _) if schema.is_atomic() => {
            applied.clone()
        }
        (
            Shape::Struct(_) | Shape::Map(_) | Shape::Untyped | Shape::Json,
            Value::Object(live),
            Value::Object(applied),
        ) if !(live.is_empty() && applied.is_empty()) => merge_entries(live, applied, schema),
        (Shape::Struct(_) | Shape::Map(_), Value::Object(entries), Value::Null) if !entries.is_empty() => live.clone(),
        (Shape::List(items), Value::Array(live), Value::Array(applied))
            if schema.list_type() != ListType::Atomic && !(live.is_empty() && applied.is_empty()) =>
        {
            merge_items(live, applied, schema, items)
        }
        (Shape::List(_), Value::Array(items), Value::Null)
            if schema.list_type() != ListType::Atomic && !items.is_empty() =>
        {
            live.clone()
        }
        _ => applied.clone(),
    }
}

fn merge_entries(live: &Map<String, Value>, applied: &Map<String, Value>, schema: Schema<'_>) -> Value {
    let mut merged = live.clone();
    for (name, wanted) in applied {
        let field = match schema.shape() {
            Shape::Struct(fields) => fields.field(name).map_or(Schema::untyped(), |(_, field)| field),
            Shape::Map(values) => values,
            _ => Schema::untyped(),
        };
        let value = match live.get(name) {
            Some(present) => merge(present, wanted, field),
            None => wanted.clone(),
        };
        merged.insert(name.clone(), value);
    }
    Value::Object(merged)
}

fn merge_items(live: &[Value], applied: &[Value], schema: Schema<'_>, items: Schema<'_>) -> Value {
    Merging {
        live_items: live,
        applied_items: applied,
        live: indexed(live, schema, items),
        applied: indexed(applied, schema, items),
        items,
    }
    .run()
}

fn indexed<'v>(list: &'v [Value], schema: Schema<'_>, items: Schema<'_>) -> Vec<(usize, PathElement<'v>)> {
    let elements = list.iter().map(|item| element_of(schema, items, item)).enumerate();
    elements.filter_map(|(index, element)| Some((index, element.ok()?))).collect()
}

struct Merging<'v, 's> {
    live_items: &'v [Value],
    applied_items: &'v [Value],
    live: Vec<(usize, PathElement<'v>)>,
    applied: Vec<(usize, PathElement<'v>)>,
    items: Schema<'s>,
}

impl Merging<'_, '_> {
    fn run(self) -> Value {
        // Live items that stand twice are not merged with the applied one but replaced by it.
        let mut live_by_element: BTreeMap<&PathElement<'_>, Option<usize>> = BTreeMap::new();
        for (index, element) in &self.live {
            live_by_element.entry(element).and_modify(|twice| *twice = None).or_insert(Some(*index));
        }
        let applied_by_element: BTreeMap<&PathElement<'_>, usize> =
            self.applied.iter().map(|(index, element)| (element, *index)).collect();
        let mut shared: VecDeque<&PathElement<'_>> =
            self.applied.iter().map(|(_, element)| element).filter(|e| live_by_element.contains_key(e)).collect();
        let mut next_shared = shared.pop_front();
        let mut done: BTreeSet<&PathElement<'_>> = BTreeSet::new();
        let mut out = Vec::with_capacity(self.live.len().max(self.applied.len()));
        let (mut l, mut r) = (0, 0);
        while l < self.live.len() || r < self.applied.len() {
            if l < self.live.len() {
                let (index, element) = &self.live[l];
                let is_applied = applied_by_element.contains_key(element);
                if r < self.applied.len() {
                    if *element == self.applied[r].1 {
                        done.insert(element);
                        out.push(self.pair(live_by_element[element], self.applied[r].0));
                        l += 1;
                        r += 1;
                        next_shared = shared.pop_front();
                        continue;
                    }
                    if is_applied && next_shared.is_some_and(|next| next != element) {
                        l += 1;
                        continue;
                    }
                }
                if !is_applied {
                    out.push(self.live_items[*index].clone());
                    l += 1;
                    continue;
                }
                if done.contains(element) {
                    l += 1;
                }
            }
            if r < self.applied.len() {
                let (index, element) = &self.applied[r];
                done.insert(element);
                out.push(self.pair(live_by_element.get(element).copied().flatten(), *index));
                r += 1;
                if next_shared == Some(element) {
                    next_shared = shared.pop_front();
                }
            }
        }
        Value::Array(out)
    }

    fn pair(&self, live: Option<usize>, applied: usize) -> Value {
        let applied = &self.applied_items[applied];
        match live {
            Some(live) => merge(&self.live_items[live], applied, self.items),
            None => applied.clone(),
        }
    }
}
