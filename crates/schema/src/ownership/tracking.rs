//! Records what a plain write changed: create, update, and every patch that is no apply.
//!
//! Never fails: managed fields that cannot be read count as none, as upstream treats them.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::compare::compare;
use super::field_set::FieldSet;
use super::managers::{self, Manager};
use super::{ResetFields, Writer};
use crate::schema::Schema;

/// An object without any field.
pub(super) static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

static STRIPPED: LazyLock<FieldSet<'static>> = LazyLock::new(|| {
    let paths: [&[&str]; 12] = [
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ];
    set_of(&paths)
});

/// Fields that are in every object and that nobody owns.
pub(super) fn stripped() -> &'static FieldSet<'static> {
    &STRIPPED
}

/// What a write is blind to: managed fields themselves, and what the strategy resets.
pub(super) fn ignored<'a>(reset: &ResetFields<'a>) -> FieldSet<'a> {
    set_of(reset).union(FieldSet::of_path(&["metadata", "managedFields"]))
}

fn set_of<'a>(paths: &[&[&'a str]]) -> FieldSet<'a> {
    paths.iter().map(|path| FieldSet::of_path(path)).fold(FieldSet::default(), FieldSet::union)
}

/// Brings `metadata.managedFields` of `new` up to date with what changed since `live` (`None` for a create).
///
/// Managed fields that the client sent are taken as the base where they can be read, so that clients can edit them; an empty
/// list or a list of one empty entry resets them. A live object that tracks nothing is left alone.
pub fn update_managed_fields(
    live: Option<&Value>,
    new: &mut Value,
    schema: Schema<'_>,
    writer: &Writer<'_>,
    reset: &ResetFields<'_>,
) {
    let Some(sent) = take_managed_fields(new) else { return };
    let known = live.and_then(|live| live.pointer("/metadata/managedFields"));
    let base = choose_base(sent.as_ref(), known, writer.subresource);
    let entries = if live.is_some() && base.as_ref().is_none_or(Vec::is_empty) {
        None
    } else {
        let before = live.unwrap_or(&EMPTY);
        match recorded(before, new, schema, writer, reset, base.unwrap_or_default()) {
            Recorded::Unchanged => unchanged(sent, known, writer.subresource),
            Recorded::Entries(entries) => entries,
        }
    };
    if let (Some(entries), Some(metadata)) = (entries, metadata_of(new)) {
        metadata.insert("managedFields".to_owned(), entries);
    }
}

/// Takes the sent managed fields out of the object. `None` for an object without metadata, which is not tracked.
fn take_managed_fields(new: &mut Value) -> Option<Option<Value>> {
    Some(metadata_of(new)?.remove("managedFields"))
}

fn metadata_of(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata")?.as_object_mut()
}

/// The managers to start from; `None` after a reset.
fn choose_base<'a>(sent: Option<&'a Value>, known: Option<&'a Value>, subresource: &str) -> Option<Vec<Manager<'a>>> {
    let known = || managers::decode(known).unwrap_or_default();
    if !subresource.is_empty() {
        return Some(known());
    }
    if sent.is_some_and(is_reset) {
        return None;
    }
    match managers::decode(sent) {
        Ok(managers) if !managers.is_empty() => Some(managers),
        _ => Some(known()),
    }
}

fn is_reset(sent: &Value) -> bool {
    match sent.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([entry]) => entry.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// The document that the base was read from.
fn unchanged(sent: Option<Value>, known: Option<&Value>, subresource: &str) -> Option<Value> {
    let usable = |sent: &Value| managers::decode(Some(sent)).is_ok_and(|managers| !managers.is_empty());
    match sent.filter(|sent| subresource.is_empty() && usable(sent)) {
        Some(sent) => Some(sent),
        None => known.cloned(),
    }
}

enum Recorded {
    Unchanged,
    Entries(Option<Value>),
}

fn recorded<'a>(
    before: &'a Value,
    after: &'a Value,
    schema: Schema<'a>,
    writer: &'a Writer<'a>,
    reset: &ResetFields<'_>,
    mut managers: Vec<Manager<'a>>,
) -> Recorded {
    let comparison = compare(before, after, schema).without(&ignored(reset));
    if comparison.is_same() {
        return Recorded::Unchanged;
    }
    let removed = comparison.removed;
    let changed = comparison.modified.union(comparison.added);
    for manager in &mut managers {
        let fields = std::mem::take(&mut manager.fields);
        manager.fields = fields.difference(&changed).difference(&removed);
    }
    let own = changed.difference(stripped());
    if !own.is_empty() {
        let identity = Manager::of_writer(writer, false);
        match managers.iter_mut().find(|manager| manager.is(&identity)) {
            Some(manager) => {
                manager.fields = std::mem::take(&mut manager.fields).union(own);
                manager.time = Some(writer.time);
            }
            None => managers.push(Manager { fields: own, time: Some(writer.time), ..identity }),
        }
    }
    managers.retain(|manager| !manager.fields.is_empty());
    managers::cap(&mut managers);
    Recorded::Entries(managers::encode(managers))
}
