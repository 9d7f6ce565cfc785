//! Merges what is applied into what is there.
//!
//! Nothing is removed by this; what only the live object has stays. Lists keep the live order unless the applied one says
//! otherwise.

use std::collections::{BTreeMap, VecDeque};

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
    let mut merging = Merging::new(live, applied, schema, items);
    while merging.live_at < live.len() || merging.applied_at < merging.applied.len() {
        if !merging.take_live() {
            merging.take_applied();
        }
    }
    Value::Array(merging.out)
}

/// Two lists on their way to become one. Positions are those of the lists as given.
struct Merging<'v, 's> {
    live: Vec<(&'v Value, Option<PathElement<'v>>)>,
    applied: Vec<(&'v Value, PathElement<'v>)>,
    /// `None` for live items that stand twice: they are not merged with the applied one but replaced by it.
    live_by_element: BTreeMap<PathElement<'v>, Option<&'v Value>>,
    applied_by_element: BTreeMap<PathElement<'v>, usize>,
    /// Applied items that are also live and were not reached yet.
    shared: VecDeque<usize>,
    done: Vec<bool>,
    live_at: usize,
    applied_at: usize,
    items: Schema<'s>,
    out: Vec<Value>,
}

impl<'v, 's> Merging<'v, 's> {
    fn new(live: &'v [Value], applied: &'v [Value], schema: Schema<'s>, items: Schema<'s>) -> Self {
        let element = |item: &'v Value| element_of(schema, items, item).ok();
        let live: Vec<_> = live.iter().map(|item| (item, element(item))).collect();
        let applied: Vec<_> = applied.iter().filter_map(|item| Some((item, element(item)?))).collect();
        let mut live_by_element = BTreeMap::new();
        for (item, element) in &live {
            if let Some(element) = element {
                live_by_element.entry(element.clone()).and_modify(|twice| *twice = None).or_insert(Some(*item));
            }
        }
        let positions = || applied.iter().enumerate().map(|(position, (_, element))| (element, position));
        let shared = positions().filter(|(element, _)| live_by_element.contains_key(element)).map(|(_, at)| at);
        Self {
            shared: shared.collect(),
            applied_by_element: positions().map(|(element, position)| (element.clone(), position)).collect(),
            done: vec![false; applied.len()],
            out: Vec::with_capacity(live.len().max(applied.len())),
            live_at: 0,
            applied_at: 0,
            live,
            applied,
            live_by_element,
            items,
        }
    }

    /// Handles the next live item; `false` when it is the applied list's turn.
    fn take_live(&mut self) -> bool {
        let Some((item, element)) = self.live.get(self.live_at) else { return false };
        let Some(position) = element.as_ref().and_then(|element| self.applied_by_element.get(element).copied()) else {
            self.out.push((*item).clone());
            self.live_at += 1;
            return true;
        };
        if self.applied_at < self.applied.len() {
            if position == self.applied_at {
                self.live_at += 1;
                self.take_applied();
                return true;
            }
            // It is applied too, but another shared item comes first there.
            if self.shared.front().is_some_and(|next| *next != position) {
                self.live_at += 1;
                return true;
            }
        }
        if self.done[position] {
            self.live_at += 1;
        }
        false
    }

    fn take_applied(&mut self) {
        let Some((item, element)) = self.applied.get(self.applied_at) else { return };
        self.out.push(match self.live_by_element.get(element).copied().flatten() {
            Some(live) => merge(live, item, self.items),
            None => (*item).clone(),
        });
        self.done[self.applied_at] = true;
        if self.shared.front() == Some(&self.applied_at) {
            self.shared.pop_front();
        }
        self.applied_at += 1;
    }
}
