//! DELETE of one object or of a collection: preconditions, grace, finalizers, propagation.
//!
//! Whether an object goes at once is decided by [`plan`], which is pure. Invariant: an object with finalizers or grace
//! left is marked and stays; it goes with the write that takes the last of them away.

mod options;

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use kedge_kinds::Propagation;
use kedge_meta::{ApiStatus, UserInfo, format_time, parse_time};
use kedge_store::Record;
use serde_json::{Value, json};

use crate::admission::{Attributes, Notes, Operation, Seen, Told};
use crate::call::Call;
use crate::core::Core;
use crate::present::{ListMeta, View};
use crate::query::ListOptions;
use crate::registry::Resource;
use crate::reply::{self, Reply};
use crate::select::Selection;
use crate::write::{self, Refusal};
use crate::{convert, object, read};

pub(crate) use options::DeleteOptions;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// How often a deletion is tried where the client named no version.
const ATTEMPTS: usize = 50;

/// What a deletion does to an object.
#[derive(Debug, PartialEq)]
pub(crate) enum Plan {
    /// It goes as it is.
    Remove,
    /// It was marked, and stays for now.
    Mark,
    /// Its deletion goes on as it did before.
    Keep,
}

/// Decides what a deletion does, and marks an object that stays.
pub(crate) fn plan(resource: &Resource, object: &mut Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    let strategy = &resource.kind.strategy;
    let requested = options.grace_period_seconds.map(|seconds| seconds.max(0));
    let has_begun = object::is_deleting(object);
    let grace = match strategy.grace_period(object, requested) {
        Some(_) if has_begun => match shortened(object, requested) {
            Some(shorter) => Some(shorter),
            None => return Plan::Keep,
        },
        grace => grace.map(|seconds| (now, seconds)),
    };
    let finalizers = finalizers(resource, object, options);
    let keeps_spec = strategy.has_spec_finalizers() && !object::list(object, &["spec", "finalizers"]).is_empty();
    if finalizers.is_empty() && !keeps_spec && grace.is_none_or(|(_, seconds)| seconds == 0) {
        return Plan::Remove;
    }
    let begins = (!has_begun).then_some((now, 0));
    let is_marked = mark(object, grace.or(begins), !has_begun);
    let is_held = set_finalizers(object, &finalizers);
    let is_told = strategy.has_spec_finalizers() && tell_phase(object);
    if is_marked || is_held || is_told { Plan::Mark } else { Plan::Keep }
}

/// Notes when a deletion began and how many seconds it has; whether there was anything to note.
fn mark(object: &mut Value, grace: Option<(Timestamp, i64)>, begins: bool) -> bool {
    let Some((began, seconds)) = grace else { return false };
    let at = began + std::time::Duration::from_secs(seconds.unsigned_abs());
    let metadata = object::metadata_mut(object);
    metadata.insert("deletionTimestamp".to_owned(), format_time(at).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), seconds.into());
    let generation = metadata.get("generation").and_then(Value::as_i64).filter(|generation| *generation > 0);
    if let (true, Some(generation)) = (begins, generation) {
        metadata.insert("generation".to_owned(), (generation + 1).into());
    }
    true
}

/// A second deletion may only make the grace shorter: when the first began, and how many seconds it has now.
fn shortened(object: &Value, requested: Option<i64>) -> Option<(Timestamp, i64)> {
    let requested = requested?;
    let current = object::at(object, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    if current.is_some_and(|current| requested >= current) {
        return None;
    }
    let at = parse_time(object::meta(object, "deletionTimestamp"))?;
    Some((at - std::time::Duration::from_secs(current.unwrap_or(0).unsigned_abs()), requested))
}

/// Whether they are others than before.
fn set_finalizers(object: &mut Value, finalizers: &[String]) -> bool {
    let are_others = object::finalizers(object) != finalizers;
    if are_others {
        object::set_finalizers(object, finalizers.to_vec());
    }
    are_others
}

/// Whether the phase was another before.
fn tell_phase(object: &mut Value) -> bool {
    let before = object::child_mut(object, "status").insert("phase".to_owned(), "Terminating".into());
    before.is_none_or(|before| before != "Terminating")
}

/// The finalizers with those that tell the garbage collector what to do with dependents.
fn finalizers(resource: &Resource, old: &Value, options: &DeleteOptions) -> Vec<String> {
    let had: Vec<&str> = object::finalizers(old);
    let default_orphan = resource.kind.strategy.default_propagation() == Propagation::Orphan;
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation_policy.as_deref()) {
        (Some(orphan), _) => (orphan, false),
        (None, Some("Orphan")) => (true, false),
        (None, Some("Foreground")) => (false, true),
        (None, Some(_)) => (false, false),
        (None, None) => {
            (had.contains(&ORPHAN) || (default_orphan && !had.contains(&FOREGROUND)), had.contains(&FOREGROUND))
        }
    };
    let mut kept: Vec<String> =
        had.iter().filter(|f| ![ORPHAN, FOREGROUND].contains(f)).map(|f| (*f).to_owned()).collect();
    if orphan {
        kept.push(ORPHAN.to_owned());
    }
    if foreground {
        kept.push(FOREGROUND.to_owned());
    }
    let own = resource.kind.strategy.deletion_finalizer().filter(|own| !object::is_deleting(old) && !had.contains(own));
    kept.extend(own.map(str::to_owned));
    kept
}

/// What came of a deletion.
pub(crate) enum Deleted {
    /// It is gone.
    Gone {
        /// Its last state.
        last: bytes::Bytes,
        /// Its kind is one whose objects may take their time to go.
        is_graceful: bool,
    },
    /// It stays for now, like this.
    Staying(bytes::Bytes),
}

/// A deletion of one object, whichever verb it came by.
pub(crate) struct Deletion<'a> {
    pub(crate) core: &'a Core,
    pub(crate) user: &'a UserInfo,
    pub(crate) resource: &'a Arc<Resource>,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) options: &'a DeleteOptions,
    pub(crate) notes: &'a Notes,
    /// As what webhooks see the object.
    pub(crate) seen: Seen<'a>,
    pub(crate) now: Timestamp,
}

impl Deletion<'_> {
    pub(crate) async fn run(&self) -> Result<Deleted, ApiStatus> {
        for _ in 0..ATTEMPTS {
            let record = self.core.record(self.resource, self.namespace, self.name).await?;
            match self.attempt(&record).await {
                Ok(deleted) => return Ok(deleted),
                Err(Refusal::Status(status)) => return Err(status),
                Err(Refusal::Conflict) => {}
            }
        }
        Err(ApiStatus::stale_update(&self.resource.group_resource, self.name))
    }

    async fn attempt(&self, record: &Record) -> Result<Deleted, Refusal> {
        let mut object = crate::core::decode(record)?;
        self.options.check_preconditions(self.resource, &object)?;
        let dry_run = self.options.is_dry_run()?;
        let (converted, options) = (self.converted(record).await?, self.options.described());
        let attributes = Attributes {
            core: self.core,
            user: self.user,
            resource: self.resource,
            subresource: "",
            operation: Operation::Delete,
            namespace: self.namespace,
            name: self.name,
            old: Some(converted.as_ref().unwrap_or(&object)),
            told: Told { options: &options, dry_run, notes: self.notes, seen: self.seen },
        };
        self.core.admission.validate_deletion(&attributes).await?;
        match plan(self.resource, &mut object, self.options, self.now) {
            Plan::Keep => Ok(Deleted::Staying(record.value.clone())),
            Plan::Remove => {
                let is_graceful = self.resource.kind.strategy.grace_period(&object, None).is_some();
                if dry_run {
                    return Ok(Deleted::Gone { last: record.value.clone(), is_graceful });
                }
                let revision = write::remove(self.core, self.resource, record, &object).await?;
                Ok(Deleted::Gone { last: record.value_at(revision), is_graceful })
            }
            Plan::Mark => {
                let template = crate::encode::template(&object);
                if dry_run {
                    return Ok(Deleted::Staying(template.render(record.modified)));
                }
                let effects = crate::admission::Effects::default();
                let key = record.key.clone();
                let put = write::put(self.core, self.resource, key, template, Some(record), effects).await?;
                Ok(Deleted::Staying(put.value))
            }
        }
    }

    /// The object as admission sees it, in the version of the request, where that is another than what is stored and
    /// somebody outside is asked.
    async fn converted(&self, record: &Record) -> Result<Option<Value>, ApiStatus> {
        let is_stored = self.resource.is_storage_version && self.resource.converter().is_none();
        match self.seen {
            Seen::Nothing => Ok(None),
            _ if is_stored => Ok(None),
            _ => convert::live(self.resource, record).await.map(Some),
        }
    }
}

/// DELETE of one object.
pub(crate) async fn delete(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    let view = View::of(call, resource)?;
    let options = DeleteOptions::read(core, call).await?;
    let target = call.resource();
    let (namespace, name) = (target.namespace.as_str(), target.name.as_str());
    let (user, notes, now) = (&call.user, &*call.notes, call.now);
    let deletion = Deletion { core, user, resource, namespace, name, options: &options, notes, seen: Seen::Plain, now };
    Ok(match deletion.run().await? {
        // Kinds with grace (pods) answer with the object in either case.
        Deleted::Gone { last, is_graceful: true } => view.object(resource, StatusCode::OK, &last),
        Deleted::Gone { last, .. } => {
            let uid = crate::scan::text(&last, &["metadata", "uid"]).into_owned();
            reply::document(StatusCode::OK, view.accepted.encoding, &success(resource, name, &uid))
        }
        Deleted::Staying(object) => {
            let object = convert::bytes(resource, object).await?;
            // Upstream's way to say that the dependents go first.
            let code = if options.orphan_dependents == Some(false) { StatusCode::ACCEPTED } else { StatusCode::OK };
            view.object(resource, code, &object)
        }
    })
}

fn success(resource: &Resource, name: &str, uid: &str) -> Value {
    let group = &resource.group_resource;
    let mut details = json!({"name": name, "kind": group.resource, "uid": uid});
    if !group.group.is_empty() {
        details["group"] = json!(group.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// DELETE of a collection.
pub(crate) async fn delete_collection(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    let view = View::of(call, resource)?;
    let list = ListOptions::parse(&call.query)?;
    let options = DeleteOptions::read(core, call).await?;
    let selection = Selection::new(Arc::clone(resource), list.labels.clone(), list.fields.clone())?;
    let (records, revision) = read::all(core, resource, &call.resource().namespace, &selection).await?;
    let prefix = resource.kind.prefix("");
    for record in &records {
        let key = record.key.as_str().strip_prefix(&prefix).unwrap_or_default();
        let (namespace, name) =
            if resource.kind.namespaced { key.split_once('/').unwrap_or(("", key)) } else { ("", key) };
        let (user, notes, now) = (&call.user, &*call.notes, call.now);
        let deletion =
            Deletion { core, user, resource, namespace, name, options: &options, notes, seen: Seen::Plain, now };
        match deletion.run().await {
            Ok(_) => {}
            // Somebody else was faster.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    Ok(view.list(resource, records, &ListMeta { revision, ..ListMeta::default() }).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(group: &str, version: &str, name: &str) -> Resource {
        Resource::new(kedge_kinds::builtin_by_resource(group, version, name).unwrap().clone())
    }

    fn check(resource: &Resource, metadata: Value, options: DeleteOptions, expected: Option<Value>) {
        let old = json!({"metadata": metadata, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        let now = parse_time("2026-01-01T00:00:00Z").unwrap();
        let mut object = old.clone();
        match (plan(resource, &mut object, &options, now), expected) {
            (Plan::Mark, Some(metadata)) => assert_eq!(object["metadata"], metadata),
            (Plan::Remove, None) | (Plan::Keep, Some(Value::Null)) => assert_eq!(object, old, "it is as it was"),
            (plan, expected) => panic!("{options:?}: {plan:?}, not {expected:?}"),
        }
    }

    #[test]
    fn deletions_are_planned() {
        let (pods, maps) = (resource("", "v1", "pods"), resource("", "v1", "configmaps"));
        let none = DeleteOptions::default;
        let grace = |seconds| DeleteOptions { grace_period_seconds: Some(seconds), ..none() };
        let policy = |text: &str| DeleteOptions { propagation_policy: Some(text.to_owned()), ..none() };
        check(&maps, json!({}), none(), None);
        let marked = |finalizers: Value| json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0, "finalizers": finalizers});
        check(&maps, json!({"finalizers": ["a/b"]}), none(), Some(marked(json!(["a/b"]))));
        check(&maps, json!({}), policy("Foreground"), Some(marked(json!(["foregroundDeletion"]))));
        check(&maps, json!({}), policy("Orphan"), Some(marked(json!(["orphan"]))));
        check(&maps, marked(json!(["a/b"])), none(), Some(Value::Null));
        check(&maps, marked(json!(["a/b"])), policy("Orphan"), Some(marked(json!(["a/b", "orphan"]))));
        let going = |at: &str, seconds: i64| json!({"deletionTimestamp": at, "deletionGracePeriodSeconds": seconds});
        check(&pods, json!({}), none(), Some(going("2026-01-01T00:00:30Z", 30)));
        check(&pods, json!({}), grace(0), None);
        check(&pods, going("2026-01-01T00:00:30Z", 30), none(), Some(Value::Null));
        check(&pods, going("2026-01-01T00:00:30Z", 30), grace(40), Some(Value::Null));
        check(&pods, going("2026-01-01T00:00:30Z", 30), grace(10), Some(going("2026-01-01T00:00:10Z", 10)));
        check(&pods, going("2026-01-01T00:00:30Z", 30), grace(0), None);
    }
}
