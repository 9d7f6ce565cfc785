//! What differs between two versions of an object, as sets of fields.
//!
//! A structure that Go holds by value counts as present, and empty, where it is absent: its owner owns its fields and not
//! the structure itself.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::field_set::{FieldSet, Node};
use super::list_items::element_of;
use super::path_element::PathElement;
use crate::facts::ListType;
use crate::schema::{Schema, Shape};

/// The fields in which two objects differ.
#[derive(Debug, Default)]
pub(super) struct Comparison<'a> {
    pub(super) removed: FieldSet<'a>,
    pub(super) modified: FieldSet<'a>,
    pub(super) added: FieldSet<'a>,
}

impl<'a> Comparison<'a> {
    /// Leaves out fields, and all below them, that nobody may own.
    pub(super) fn without(self, ignored: &FieldSet<'_>) -> Self {
        Comparison {
            removed: self.removed.without_subtrees(ignored),
            modified: self.modified.without_subtrees(ignored),
            added: self.added.without_subtrees(ignored),
        }
    }

    /// What is new or has another value.
    pub(super) fn changed(&self) -> FieldSet<'a> {
        self.modified.clone().union(self.added.clone())
    }

    /// Whether nothing differs.
    pub(super) fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }
}

#[derive(Default)]
struct Diff<'a> {
    removed: Node<'a>,
    modified: Node<'a>,
    added: Node<'a>,
}

/// Compares two whole objects.
pub(super) fn compare<'a>(before: &'a Value, after: &'a Value, schema: Schema<'a>) -> Comparison<'a> {
    let diff = compare_position(Some(before), Some(after), schema);
    Comparison { removed: diff.removed.children, modified: diff.modified.children, added: diff.added.children }
}

fn compare_position<'a>(before: Option<&'a Value>, after: Option<&'a Value>, schema: Schema<'a>) -> Diff<'a> {
    let is_container =
        |value: Option<&Value>, is: fn(&Value) -> bool| value.is_none_or(|value| is(value) || value.is_null());
    let both_maps = is_container(before, Value::is_object) && is_container(after, Value::is_object);
    let both_lists = is_container(before, Value::is_array) && is_container(after, Value::is_array);
    let mut diff = match schema.shape() {
        _ if is_hollow(before) && is_hollow(after) => return leaf(before, after),
        Shape::Struct(_) | Shape::Map(_) | Shape::Untyped | Shape::Json if both_maps && !schema.is_atomic() => {
            maps(before, after, schema)
        }
        Shape::List(items) if both_lists && schema.list_type() != ListType::Atomic => {
            lists(before, after, schema, items)
        }
        _ => return leaf(before, after),
    };
    match (before, after) {
        (None, _) => diff.added.member = true,
        (_, None) => diff.removed.member = true,
        _ => {}
    }
    diff
}

/// Null and empty containers are leaves, so that the difference between them stays visible.
fn is_hollow(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(object)) => object.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

fn leaf<'a>(before: Option<&Value>, after: Option<&Value>) -> Diff<'a> {
    let mut diff = Diff::default();
    match (before, after) {
        (None, None) => {}
        (None, Some(_)) => diff.added = Node::member(),
        (Some(_), None) => diff.removed = Node::member(),
        (Some(before), Some(after)) if before != after => diff.modified = Node::member(),
        _ => {}
    }
    diff
}

impl<'a> Diff<'a> {
    fn push(&mut self, element: PathElement<'a>, below: Diff<'a>) {
        let Diff { removed, modified, added } = below;
        if !removed.is_empty() {
            self.removed.children.push(element.clone(), removed);
        }
        if !modified.is_empty() {
            self.modified.children.push(element.clone(), modified);
        }
        self.added.children.push(element, added);
    }
}

/// The schema of an entry of a structure or map.
fn entry_schema<'a>(schema: Schema<'a>, name: &str) -> Schema<'a> {
    match schema.shape() {
        Shape::Struct(fields) => fields.field(name).map_or(Schema::untyped(), |(_, field)| field),
        Shape::Map(values) => values,
        _ => Schema::untyped(),
    }
}

fn maps<'a>(before: Option<&'a Value>, after: Option<&'a Value>, schema: Schema<'a>) -> Diff<'a> {
    let mut diff = Diff::default();
    let (left, right) = (before.and_then(Value::as_object), after.and_then(Value::as_object));
    for_each_entry(left, right, &mut |name, old, new| {
        if old == new {
            return;
        }
        let field = entry_schema(schema, name);
        let old = old.or_else(|| left.and_then(|_| field.implicit()));
        let new = new.or_else(|| right.and_then(|_| field.implicit()));
        diff.push(PathElement::Field(name.into()), compare_position(old, new, field));
    });
    diff
}

/// Walks two maps together, each name once, in order.
fn for_each_entry<'a>(
    left: Option<&'a Map<String, Value>>,
    right: Option<&'a Map<String, Value>>,
    visit: &mut dyn FnMut(&'a str, Option<&'a Value>, Option<&'a Value>),
) {
    let mut left = left.into_iter().flatten().peekable();
    let mut right = right.into_iter().flatten().peekable();
    loop {
        let order = match (left.peek(), right.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let old = if order == Ordering::Greater { None } else { left.next() };
        let new = if order == Ordering::Less { None } else { right.next() };
        if let Some((name, _)) = old.or(new) {
            visit(name, old.map(|(_, value)| value), new.map(|(_, value)| value));
        }
    }
}

type ItemsByElement<'a> = BTreeMap<PathElement<'a>, (Vec<&'a Value>, Vec<&'a Value>)>;

fn lists<'a>(before: Option<&'a Value>, after: Option<&'a Value>, schema: Schema<'a>, items: Schema<'a>) -> Diff<'a> {
    let mut by_element = ItemsByElement::new();
    let items_of = |value: Option<&'a Value>| value.and_then(Value::as_array).into_iter().flatten();
    // An item without a key cannot be owned; validation has already refused or will refuse it.
    for item in items_of(before) {
        if let Ok(element) = element_of(schema, items, item) {
            by_element.entry(element).or_default().0.push(item);
        }
    }
    for item in items_of(after) {
        if let Ok(element) = element_of(schema, items, item) {
            by_element.entry(element).or_default().1.push(item);
        }
    }
    let mut diff = Diff::default();
    for (element, (old, new)) in by_element {
        let below = match (old.as_slice(), new.as_slice()) {
            ([] | [_], [] | [_]) => compare_position(old.first().copied(), new.first().copied(), items),
            (several, others) => duplicates(several, others, items),
        };
        diff.push(element, below);
    }
    diff
}

/// Items that stand twice are owned as a whole, under their common element.
fn duplicates<'a>(old: &[&'a Value], new: &[&'a Value], items: Schema<'a>) -> Diff<'a> {
    let mut diff = Diff::default();
    match (old, new) {
        ([_, _, ..], [_, _, ..]) => diff.modified.member = old != new,
        ([_, _, ..], _) => {
            if let Some(item) = new.first() {
                diff = compare_position(None, Some(item), items);
            }
            diff.removed.member = true;
        }
        _ => {
            if let Some(item) = old.first() {
                diff = compare_position(Some(item), None, items);
            }
            diff.added.member = true;
        }
    }
    diff
}
