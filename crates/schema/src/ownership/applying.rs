//! Server-side apply.
//!
//! The applied configuration is everything its manager wants to own. It is merged into the live object; what the manager
//! applied before and leaves out now goes away, unless somebody else owns it; what others own and would change is a
//! conflict, unless the apply is forced, which takes it from them.

use serde_json::Value;

use super::compare::{Comparison, compare};
use super::field_set::FieldSet;
use super::managers::{self, Manager};
use super::merge::merge;
use super::select::{fields_of, without_fields};
use super::tracking::{EMPTY, ignored, stripped};
use super::typed_check;
use super::{ApplyError, Conflict, ResetFields, Writer};
use crate::schema::Schema;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The one manager that takes over from client-side apply.
const KUBECTL: &str = "kubectl";

/// The outcome of an apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The object with its managed fields.
    pub object: Value,
    /// Whether it differs from the live one.
    pub changed: bool,
}

/// Applies a configuration. `live` is `None` where the object does not exist yet.
///
/// The object that comes out still has to be validated, defaulted and admitted.
pub fn apply(
    live: Option<&Value>,
    patch: Value,
    schema: Schema<'_>,
    writer: &Writer<'_>,
    force: bool,
    reset: &ResetFields<'_>,
) -> Result<Applied, ApplyError> {
    check_patch(&patch, schema, writer)?;
    let known = live.and_then(|live| live.pointer("/metadata/managedFields"));
    let decoded = managers::decode(known)
        .map_err(|error| ApplyError::Typed(format!("failed to decode managed fields: {error}")))?;
    let ignored = ignored(reset);
    let mut applying = Applying { live: live.unwrap_or(&EMPTY), patch: &patch, schema, writer, managers: decoded };
    if applying.managers.is_empty() {
        applying.adopt(&ignored);
    }
    let (mut object, managers) = applying.run(&ignored, force)?;
    let same = live.is_some_and(|live| same_but_managed_fields(live, &object));
    let managers = stamp(managers, writer, !same);
    if writer.manager == KUBECTL {
        renew_last_applied(&mut object, &patch);
    }
    set_managed_fields(&mut object, managers::encode(managers));
    let changed = live != Some(&object);
    Ok(Applied { object, changed })
}

fn check_patch(patch: &Value, schema: Schema<'_>, writer: &Writer<'_>) -> Result<(), ApplyError> {
    let text = |pointer: &str| patch.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("/apiVersion"), text("/kind"));
    let gvk = format!("{}, Kind={kind}", if api_version.is_empty() { "/" } else { api_version });
    if api_version != writer.api_version || kind != writer.kind {
        return Err(ApplyError::BadRequest(format!("invalid object type: {gvk}")));
    }
    if patch.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    }
    match typed_check::check(patch, schema) {
        None => Ok(()),
        Some(problem) => {
            let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
            let text = format!("failed to create typed patch object ({namespace}/{name}; {gvk}): {problem}");
            Err(ApplyError::Typed(text))
        }
    }
}

struct Applying<'a> {
    live: &'a Value,
    patch: &'a Value,
    schema: Schema<'a>,
    writer: &'a Writer<'a>,
    managers: Vec<Manager<'a>>,
}

impl<'a> Applying<'a> {
    /// Fields of an object that was never tracked belong to whoever was there before.
    fn adopt(&mut self, ignored: &FieldSet<'_>) {
        let comparison = compare(&EMPTY, self.live, self.schema).without(ignored);
        let fields = comparison.changed().difference(stripped());
        if !fields.is_empty() {
            let writer = Writer { manager: BEFORE_FIRST_APPLY, ..*self.writer };
            self.managers.push(Manager { fields, time: Some(writer.time), ..Manager::of_writer(&writer, false) });
        }
    }

    fn run(mut self, ignored: &FieldSet<'_>, force: bool) -> Result<(Value, Vec<Manager<'a>>), ApplyError> {
        let mut own = Manager::of_writer(self.writer, true);
        let last = match self.managers.iter().position(|manager| manager.is(&own)) {
            Some(index) => self.managers.swap_remove(index),
            None => own.clone(),
        };
        own.fields = fields_of(self.patch, self.schema).without_subtrees(ignored);
        own.time = last.time;
        let mut object = merge(self.live, self.patch, self.schema);
        set_managed_fields(&mut object, None);
        if !last.fields.is_empty() {
            object = self.prune(&object, &last.fields, &own.fields);
        }
        let comparison = compare(self.live, &object, self.schema).without(ignored);
        if !force {
            self.check_conflicts(&comparison)?;
        }
        let changed = comparison.changed();
        for manager in &mut self.managers {
            let fields = std::mem::take(&mut manager.fields);
            manager.fields = fields.difference(&changed).difference(&comparison.removed);
        }
        own.fields = own.fields.difference(stripped());
        self.managers.push(own);
        self.managers.retain(|manager| !manager.fields.is_empty());
        Ok((object, self.managers))
    }

    /// Takes out what was applied last time and is not any more, as far as nobody else owns it.
    fn prune(&self, merged: &Value, last: &FieldSet<'_>, own: &FieldSet<'_>) -> Value {
        let last = last.clone().with_named_fields(Some(self.schema));
        let all = fields_of(merged, self.schema).with_named_fields(Some(self.schema));
        let pruned = without_fields(merged, &last, self.schema);
        // What others own, or what is applied now, comes back.
        let mut owned = own.clone();
        for manager in &self.managers {
            owned = owned.union(manager.fields.clone());
        }
        let owned = owned.with_named_fields(Some(self.schema));
        let left = fields_of(&pruned, self.schema).with_named_fields(Some(self.schema));
        let unwanted = all.clone().difference(&left).difference(&owned);
        let pruned = without_fields(merged, &unwanted, self.schema);
        // Only what this manager applied before may go.
        let left = fields_of(&pruned, self.schema).with_named_fields(Some(self.schema));
        let unwanted = all.difference(&left).intersection(&last);
        without_fields(merged, &unwanted, self.schema)
    }

    fn check_conflicts(&self, comparison: &Comparison<'_>) -> Result<(), ApplyError> {
        let changed = comparison.changed();
        let allowed = if self.writer.manager == KUBECTL { self.applied_by_client() } else { None };
        let mut conflicts = Vec::new();
        for manager in &self.managers {
            let mut taken = manager.fields.intersection(&changed);
            if let Some(allowed) = &allowed {
                taken = taken.difference(&FieldSet::decode(allowed).unwrap_or_default());
            }
            let manager = manager.describe();
            taken.for_each_path(&mut |field| {
                conflicts.push(Conflict { manager: manager.clone(), field: field.to_owned() });
            });
        }
        conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
        if conflicts.is_empty() { Ok(()) } else { Err(ApplyError::Conflict(conflicts)) }
    }

    /// What the client-side apply annotation lists and the live object still has: kubectl may take it over.
    fn applied_by_client(&self) -> Option<Value> {
        let annotations = self.live.pointer("/metadata/annotations")?;
        let last: Value = serde_json::from_str(annotations.get(LAST_APPLIED)?.as_str()?).ok()?;
        if last.get("apiVersion").and_then(Value::as_str) != Some(self.writer.api_version) {
            return None;
        }
        let comparison = compare(&last, self.live, self.schema);
        let fields = fields_of(&last, self.schema);
        let unchanged = fields.difference(&comparison.changed()).difference(&comparison.removed);
        Some(unchanged.encode())
    }
}

/// The applier's time moves only when the object changed.
fn stamp<'a>(mut managers: Vec<Manager<'a>>, writer: &Writer<'a>, changed: bool) -> Vec<Manager<'a>> {
    let identity = Manager::of_writer(writer, true);
    if changed && let Some(own) = managers.iter_mut().find(|manager| manager.is(&identity)) {
        own.time = Some(writer.time);
    }
    managers
}

fn same_but_managed_fields(live: &Value, object: &Value) -> bool {
    let (Value::Object(live), Value::Object(object)) = (live, object) else { return live == object };
    live.len() == object.len()
        && live.iter().all(|(name, value)| match (name.as_str(), object.get(name)) {
            ("metadata", Some(theirs)) => entries_of(value).eq(entries_of(theirs)),
            (_, theirs) => theirs == Some(value),
        })
}

fn entries_of(metadata: &Value) -> impl Iterator<Item = (&String, &Value)> {
    metadata.as_object().into_iter().flatten().filter(|(name, _)| *name != "managedFields")
}

/// Keeps the client-side apply annotation in step, so that a later client-side apply sees what was applied.
fn renew_last_applied(object: &mut Value, patch: &Value) {
    let Some(annotation) = object.pointer_mut("/metadata/annotations").and_then(|all| all.get_mut(LAST_APPLIED)) else {
        return;
    };
    if annotation.as_str().is_none_or(str::is_empty) {
        return;
    }
    let mut applied = patch.clone();
    if let Some(annotations) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    *annotation = Value::from(format!("{applied}\n"));
}

fn set_managed_fields(object: &mut Value, entries: Option<Value>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    match entries {
        Some(entries) => {
            metadata.insert("managedFields".to_owned(), entries);
        }
        None => {
            metadata.remove("managedFields");
        }
    }
}
