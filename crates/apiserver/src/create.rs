//! POST of a new object.
//!
//! Decode, default, mutating admission, preparation, validation, validating admission, reservation, commit.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use kedge_kinds::WriteContext;
use kedge_meta::{ApiStatus, UserInfo};
use serde_json::Value;

use crate::admission::{Attributes, Operation, Seen, Told};
use crate::call::Call;
use crate::core::{Core, new_uid, random_suffix};
use crate::present::View;
use crate::registry::Resource;
use crate::reply::Reply;
use crate::write::{self, Expected, Refusal, Sent, WriteOptions};
use crate::{convert, object};

/// How many generated names are tried.
const NAME_ATTEMPTS: usize = 8;

/// How often a creation is tried whose companions (quotas) have changed.
const ATTEMPTS: usize = 50;

/// Upstream's length of the generated part of a name, and of a name that it is appended to.
const SUFFIX: usize = 5;
const MAX_BASE: usize = 58;

/// POST of an object to a collection.
pub(crate) async fn create(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    let view = View::of(call, resource)?;
    let options = WriteOptions::of(call)?;
    let sent = Sent::read(core, call, Expected::of(resource), options.validation).await?;
    let namespace = call.resource().namespace.clone();
    let wanted = || {
        let mut object = sent.object()?;
        if resource.kind.namespaced {
            write::place_namespace(&mut object, &namespace)?;
        } else {
            object::metadata_mut(&mut object).remove("namespace");
        }
        if !object::meta(&object, "resourceVersion").is_empty() {
            return Err(ApiStatus::bad_request("resourceVersion should not be set on objects to be created"));
        }
        Ok(object)
    };
    let new = New { core, user: &call.user, resource, options: &options, now: call.now };
    let created = new.create(&wanted, true).await?;
    call.warnings.extend(created.warnings);
    Ok(view.object(resource, StatusCode::CREATED, &created.stored))
}

/// An object that is there now.
pub(crate) struct Created {
    pub(crate) stored: Bytes,
    /// What its kind and admission have to say about it.
    pub(crate) warnings: Vec<String>,
}

/// What is to be created, as it was sent: each time the same.
pub(crate) type Wanted<'a> = dyn Fn() -> Result<Value, ApiStatus> + Send + Sync + 'a;

/// A creation, whichever verb it came by.
pub(crate) struct New<'a> {
    pub(crate) core: &'a Core,
    pub(crate) user: &'a UserInfo,
    pub(crate) resource: &'a Arc<Resource>,
    pub(crate) options: &'a WriteOptions,
    pub(crate) now: jiff::Timestamp,
}

impl New<'_> {
    /// Creates the object, which is asked for again where the creation has to be tried again. `notes_manager` is false
    /// where managed fields are there.
    pub(crate) async fn create(&self, wanted: &Wanted<'_>, notes_manager: bool) -> Result<Created, ApiStatus> {
        let kind = &self.resource.kind;
        let mut object = wanted()?;
        let mut warnings = kind.strategy.warnings(&object, None);
        let name = object::name(&object).to_owned();
        let base = if name.is_empty() { object::meta(&object, "generateName").to_owned() } else { String::new() };
        let attempts = if base.is_empty() { ATTEMPTS } else { NAME_ATTEMPTS };
        for _ in 0..attempts {
            kind.default(&mut object);
            if notes_manager {
                // What admission adds is nobody's, as with upstream.
                write::note_manager(self.resource, "", None, &mut object, &self.options.manager, self.now);
            }
            if !base.is_empty() {
                let base: String = base.chars().take(MAX_BASE).collect();
                // DIVERGES: upstream's mutating webhooks see no name yet.
                object::set_meta(&mut object, "name", &format!("{base}{}", random_suffix(SUFFIX)));
            }
            match self.attempt(&mut object).await {
                Ok(created) => {
                    warnings.extend(created.warnings);
                    return Ok(Created { warnings, ..created });
                }
                Err(Refusal::Status(status)) => return Err(status),
                Err(Refusal::Conflict) if base.is_empty() && self.exists(&object).await? => {
                    return Err(ApiStatus::already_exists(&self.resource.group_resource, object::name(&object)));
                }
                // A generated name was taken, or something that is written together with the object has changed.
                Err(Refusal::Conflict) => object = wanted()?,
            }
        }
        Err(ApiStatus::already_exists(&self.resource.group_resource, &name))
    }

    async fn exists(&self, object: &Value) -> Result<bool, ApiStatus> {
        let found = self.core.find(self.resource, object::namespace(object), object::name(object)).await?;
        Ok(found.is_some())
    }

    async fn attempt(&self, object: &mut Value) -> Result<Created, Refusal> {
        let (core, resource, kind) = (self.core, self.resource, &self.resource.kind);
        let (namespace, name) = (object::namespace(object).to_owned(), object::name(object).to_owned());
        let options = self.options.described(true);
        let attributes = Attributes {
            core,
            user: self.user,
            resource,
            subresource: "",
            operation: Operation::Create,
            namespace: &namespace,
            name: &name,
            old: None,
            told: Told {
                options: &options,
                dry_run: self.options.dry_run,
                notes: &self.options.notes,
                seen: Seen::Plain,
            },
        };
        core.admission.admit(&attributes, object).await?;
        if kind.namespaced {
            write::place_namespace(object, &namespace)?;
        }
        // A webhook may have given it another one.
        let name = object::name(object).to_owned();
        let attributes = Attributes { name: &name, ..attributes };
        let uid = new_uid();
        kind.prepare_create(object, &WriteContext { now: self.now, uid: &uid });
        let errors = kind.validate_create(object);
        if !errors.is_empty() {
            return Err(ApiStatus::invalid(&kind.group, &kind.kind, &name, &errors).into());
        }
        core.admission.validate(&attributes, object).await?;
        let warnings = core.admission.warnings(&attributes, object).await?;
        let effects = core.admission.reserve(&attributes, object).await?;
        let key = resource.key(&namespace, &name);
        if self.options.dry_run {
            if core.find(resource, &namespace, &name).await?.is_some() {
                return Err(Refusal::Conflict);
            }
            // Like upstream's answer, this one has no resourceVersion: there was no commit.
            object::metadata_mut(object).remove("resourceVersion");
            let mut stored = object.clone();
            if resource.converter().is_none() {
                kind.to_storage(&mut stored);
            }
            return Ok(Created { stored: stored.to_string().into(), warnings });
        }
        let template = convert::template(resource, object).await?;
        let record = write::put(core, resource, key, template, None, effects).await?;
        Ok(Created { stored: convert::bytes(resource, record.value).await?, warnings })
    }
}
