//! Changes of objects that are there: PUT, and what patches, scale and every other subresource come down to.
//!
//! An [`Edit`] says what the object is to become, given what it is; this file does the rest, and does it again when
//! somebody else was faster. Invariants: a change that changes nothing writes nothing; an object that is being deleted
//! goes when its last finalizer goes.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use kedge_meta::{ApiStatus, FieldError, FieldPath, UserInfo};
use kedge_store::Record;
use serde_json::{Value, json};

use crate::admission::{Attributes, Operation, Seen, Told};
use crate::call::Call;
use crate::core::Core;
use crate::create::New;
use crate::present::View;
use crate::registry::Resource;
use crate::reply::Reply;
use crate::write::{self, Expected, Refusal, Sent, WriteOptions};
use crate::{convert, encode, object};

/// How often a change is tried where the client did not say from which version it was made.
pub(crate) const ATTEMPTS: usize = 50;

/// What an edit makes of an object.
pub(crate) struct Edited {
    pub(crate) object: Value,
    /// `metadata.managedFields` is right already (server-side apply).
    pub(crate) has_managers: bool,
    /// The object is to stay as it is.
    pub(crate) is_unchanged: bool,
    pub(crate) warnings: Vec<String>,
}

impl Edited {
    pub(crate) fn new(object: Value) -> Self {
        Self { object, has_managers: false, is_unchanged: false, warnings: Vec::new() }
    }
}

/// What an object is to become, given what it is (in the version of the request).
pub(crate) type Edit<'a> = dyn Fn(&Value) -> Result<Edited, ApiStatus> + Send + Sync + 'a;

/// A change of one object.
pub(crate) struct Update<'a> {
    pub(crate) core: &'a Core,
    pub(crate) user: &'a UserInfo,
    pub(crate) resource: &'a Arc<Resource>,
    /// As admission sees it.
    pub(crate) subresource: &'a str,
    /// Which part of the object is written, as the kind's strategy names it; the main part for `scale`.
    pub(crate) part: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) options: &'a WriteOptions,
    /// As what webhooks see the object.
    pub(crate) seen: Seen<'a>,
    pub(crate) now: jiff::Timestamp,
}

/// What came of a change.
pub(crate) struct Outcome {
    /// The object as it is stored now.
    pub(crate) stored: Bytes,
    pub(crate) warnings: Vec<String>,
}

/// PUT of an object or of one of its parts that have the object's own kind (`status`).
pub(crate) async fn update(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    let view = View::of(call, resource)?;
    let options = WriteOptions::of(call)?;
    let sent = Sent::read(core, call, Expected::of(resource), options.validation).await?;
    let target = call.resource().clone();
    let mut object = sent.object()?;
    write::place(resource, &mut object, &target.namespace, &target.name)?;
    sent.keep(object);
    let update = Update {
        core,
        user: &call.user,
        resource,
        subresource: &target.subresource,
        part: &target.subresource,
        namespace: &target.namespace,
        name: &target.name,
        options: &options,
        seen: Seen::Plain,
        now: call.now,
    };
    let creates = resource.kind.strategy.creates_on_update() && target.subresource.is_empty();
    if creates && core.find(resource, &target.namespace, &target.name).await?.is_none() {
        let wanted = || {
            let mut new = sent.object()?;
            write::place(resource, &mut new, &target.namespace, &target.name)?;
            object::metadata_mut(&mut new).remove("resourceVersion");
            Ok(new)
        };
        let create = New { core, user: &call.user, resource, options: &options, now: call.now };
        let created = create.create(&wanted, true).await?;
        call.warnings.extend(created.warnings);
        return Ok(view.object(resource, StatusCode::CREATED, &created.stored));
    }
    let outcome = update.run(&|_| sent.object().map(Edited::new)).await?;
    call.warnings.extend(outcome.warnings);
    Ok(view.object(resource, StatusCode::OK, &outcome.stored))
}

impl Update<'_> {
    /// Does it, or says why not.
    pub(crate) async fn run(&self, edit: &Edit<'_>) -> Result<Outcome, ApiStatus> {
        for _ in 0..ATTEMPTS {
            let record = self.core.record(self.resource, self.namespace, self.name).await?;
            match self.attempt(&record, edit).await {
                Ok(outcome) => {
                    return Ok(Outcome { stored: convert::bytes(self.resource, outcome.stored).await?, ..outcome });
                }
                Err(Refusal::Status(status)) => return Err(status),
                Err(Refusal::Conflict) => {}
            }
        }
        Err(ApiStatus::stale_update(&self.resource.group_resource, self.name))
    }

    async fn attempt(&self, record: &Record, edit: &Edit<'_>) -> Result<Outcome, Refusal> {
        let old = convert::live(self.resource, record).await?;
        let edited = edit(&old)?;
        if edited.is_unchanged {
            return Ok(Outcome { stored: record.value.clone(), warnings: edited.warnings });
        }
        let mut new = edited.object;
        write::place(self.resource, &mut new, self.namespace, self.name)?;
        self.check_version(&new, &old)?;
        let mut warnings = edited.warnings;
        self.resource.kind.default(&mut new);
        if !edited.has_managers {
            self.note_manager(&old, &mut new);
        }
        let options = self.options.described(false);
        let attributes = self.attributes(&old, &options);
        self.core.admission.admit(&attributes, &mut new).await?;
        self.prepare(&mut new, &old)?;
        if self.part.is_empty() {
            warnings.extend(self.resource.kind.strategy.warnings(&new, Some(&old)));
        }
        self.core.admission.validate(&attributes, &new).await?;
        warnings.extend(self.core.admission.warnings(&attributes, &new).await?);
        let effects = self.core.admission.reserve(&attributes, &mut new).await?;
        let template = convert::template(self.resource, &new).await?;
        if encode::is_unchanged(&template, record) || is_same_but_times(&new, &old) {
            return Ok(Outcome { stored: record.value.clone(), warnings });
        }
        if is_finished(self.resource, &new) {
            return self.finish(record, &new, warnings).await;
        }
        if self.options.dry_run {
            return Ok(Outcome { stored: template.render(record.modified), warnings });
        }
        let record = write::put(self.core, self.resource, record.key.clone(), template, Some(record), effects).await?;
        Ok(Outcome { stored: record.value, warnings })
    }

    fn attributes<'b>(&'b self, old: &'b Value, options: &'b Value) -> Attributes<'b> {
        Attributes {
            core: self.core,
            user: self.user,
            resource: self.resource,
            subresource: self.subresource,
            operation: Operation::Update,
            namespace: self.namespace,
            name: self.name,
            old: Some(old),
            told: Told { options, dry_run: self.options.dry_run, notes: &self.options.notes, seen: self.seen },
        }
    }

    fn note_manager(&self, old: &Value, new: &mut Value) {
        if object::at(new, &["metadata", "managedFields"]).is_none() {
            // Upstream takes "left out" as "as it was"; an empty list would forget them.
            object::copy_meta(old, new, "managedFields");
        }
        write::note_manager(self.resource, self.subresource, Some(old), new, &self.options.manager, self.now);
    }

    /// Refuses what was made from another version of the object, or for another object of the name.
    fn check_version(&self, new: &Value, old: &Value) -> Result<(), Refusal> {
        let (version, uid) = (object::meta(new, "resourceVersion"), object::meta(new, "uid"));
        let resource = &self.resource.group_resource;
        if version.is_empty() {
            let is_main = self.part.is_empty() && self.subresource.is_empty();
            if !self.resource.kind.strategy.allows_unconditional_update() && is_main {
                let path = FieldPath::new("metadata").child("resourceVersion");
                let error = FieldError::invalid(&path, &json!(0), "must be specified for an update");
                return Err(self.invalid(&[error]).into());
            }
        } else if version != object::meta(old, "resourceVersion") {
            return Err(ApiStatus::stale_update(resource, self.name).into());
        }
        let old_uid = object::meta(old, "uid");
        if !uid.is_empty() && uid != old_uid {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}");
            return Err(ApiStatus::conflict(resource, self.name, &why).into());
        }
        Ok(())
    }

    fn prepare(&self, new: &mut Value, old: &Value) -> Result<(), ApiStatus> {
        let kind = &self.resource.kind;
        kind.prepare_update(new, old, self.part);
        // Validation compares with what is there; the commit checks that it still is.
        object::copy_meta(old, new, "resourceVersion");
        let errors = kind.validate_update(new, old, self.part);
        if errors.is_empty() { Ok(()) } else { Err(self.invalid(&errors)) }
    }

    fn invalid(&self, errors: &[FieldError]) -> ApiStatus {
        ApiStatus::invalid(&self.resource.kind.group, &self.resource.kind.kind, self.name, errors)
    }

    /// The last finalizer has gone: so does the object.
    async fn finish(&self, record: &Record, new: &Value, warnings: Vec<String>) -> Result<Outcome, Refusal> {
        let stored = convert::template(self.resource, new).await?;
        if self.options.dry_run {
            return Ok(Outcome { stored: stored.render(record.modified), warnings });
        }
        let revision = write::remove(self.core, self.resource, record, new).await?;
        Ok(Outcome { stored: stored.render(revision), warnings })
    }
}

/// Whether nothing keeps an object whose deletion has begun.
pub(crate) fn is_finished(resource: &Resource, object: &Value) -> bool {
    if !object::is_deleting(object) || !object::finalizers(object).is_empty() {
        return false;
    }
    if resource.kind.strategy.has_spec_finalizers() && !object::list(object, &["spec", "finalizers"]).is_empty() {
        return false;
    }
    object::at(object, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64).unwrap_or(0) == 0
}

/// Whether two objects differ in nothing but the times at which managers wrote.
fn is_same_but_times(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    new.len() == old.len()
        && new.iter().all(|(key, value)| match (key.as_str(), old.get(key)) {
            ("metadata", Some(old)) => same_metadata(value, old),
            (_, other) => other == Some(value),
        })
}

fn same_metadata(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    let counted = |name: &str| name != "resourceVersion";
    new.keys().filter(|key| counted(key)).count() == old.keys().filter(|key| counted(key)).count()
        && new.iter().filter(|(key, _)| counted(key)).all(|(key, value)| match (key.as_str(), old.get(key)) {
            ("managedFields", Some(old)) => same_managers(value, old),
            (_, other) => other == Some(value),
        })
}

fn same_managers(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_array(), old.as_array()) else { return false };
    let same = |new: &Value, old: &Value| {
        let fields = ["manager", "operation", "apiVersion", "subresource", "fieldsV1"];
        fields.iter().all(|field| new.get(*field) == old.get(*field))
    };
    new.len() == old.len() && new.iter().zip(old).all(|(new, old)| same(new, old))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_managers_do_not_count() {
        let object = |time: &str, data: u32| json!({"metadata": {"name": "a", "managedFields": [{"manager": "m", "time": time}]}, "data": data});
        assert!(is_same_but_times(&object("1", 1), &object("2", 1)));
        assert!(!is_same_but_times(&object("1", 1), &object("1", 2)));
        assert!(!is_same_but_times(&json!({"metadata": {"name": "a"}}), &json!({"metadata": {"name": "a", "x": 1}})));
    }
}
