//! What the writing verbs share: reading the object that was sent, managed fields, commits.
//!
//! Invariant: an object is committed only under the condition of the record that the decision was made on.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, Response};
use kedge_custom::Version;
use kedge_meta::{ApiStatus, format_time};
use kedge_schema::{BodyFormat, DecodeError, Decoded, FieldValidation, ResetFields, Schema, Writer};
use kedge_store::{CommitError, Condition, Durability, Expect, Record, Revision, Template, Transaction, Write};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::admission::{Effects, Notes};
use crate::body::Body;
use crate::call::Call;
use crate::core::Core;
use crate::registry::Resource;
use crate::reply::store_error;
use crate::{negotiate, object};

/// Upstream's bound for the length of a field manager's name.
const MAX_MANAGER: usize = 128;

/// What a write is told by its request, besides the object.
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) manager: String,
    pub(crate) validation: FieldValidation,
    pub(crate) notes: Arc<Notes>,
    /// As they were sent.
    given: Value,
}

impl WriteOptions {
    pub(crate) fn of(call: &Call) -> Result<Self, ApiStatus> {
        let manager = call.field_manager();
        if manager.len() > MAX_MANAGER {
            let error = kedge_meta::FieldError::too_long(&kedge_meta::FieldPath::new("fieldManager"), MAX_MANAGER);
            return Err(ApiStatus::invalid("meta.k8s.io", "CreateOptions", "", &[error]));
        }
        let (dry_run, validation) = (call.query.dry_run()?, call.field_validation()?);
        Ok(Self { dry_run, manager, validation, notes: Arc::clone(&call.notes), given: given(call, dry_run) })
    }

    /// What webhooks are told of them, where they create an object (by whichever verb) or change one.
    pub(crate) fn described(&self, creates: bool) -> Value {
        let mut described = self.given.clone();
        if let (true, Some(fields)) = (creates, described.as_object_mut()) {
            fields.insert("kind".to_owned(), "CreateOptions".into());
            fields.remove("force");
        }
        described
    }
}

fn given(call: &Call, dry_run: bool) -> Value {
    let kind = match call.verb {
        "patch" => "PatchOptions",
        "update" => "UpdateOptions",
        _ => "CreateOptions",
    };
    let mut given = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if dry_run {
        given["dryRun"] = json!(["All"]);
    }
    for name in ["fieldManager", "fieldValidation"] {
        if let Some(text) = call.query.non_empty(name) {
            given[name] = json!(text);
        }
    }
    if call.query.get("force").is_some() {
        given["force"] = json!(call.query.flag("force"));
    }
    given
}

/// The kind that a body must be of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) api_version: &'a str,
    pub(crate) version: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) schema: Schema<'a>,
    /// What custom resources are held to.
    pub(crate) custom: Option<&'a Version>,
}

impl<'a> Expected<'a> {
    pub(crate) fn of(resource: &'a Resource) -> Self {
        let (version, kind) = (&*resource.kind.version, &*resource.kind.kind);
        let (schema, custom) = (resource.schema(), resource.version());
        Self { api_version: &resource.api_version, version, kind, schema, custom }
    }

    /// A built-in kind that is no resource of its own, such as the body of a subresource.
    pub(crate) fn builtin(group: &str, version: &'a str, kind: &'a str, api_version: &'a str) -> Self {
        let schema = kedge_schema::type_by_gvk(group, version, kind).map_or_else(Schema::untyped, Schema::of);
        Self { api_version, version, kind, schema, custom: None }
    }

    fn decode(&self, body: &[u8], format: BodyFormat, mode: FieldValidation) -> Result<Decoded, DecodeError> {
        let Some(custom) = self.custom else { return kedge_schema::decode_object(body, format, self.schema, mode) };
        let decoded = kedge_schema::decode_object(body, format, custom.reading(), heard(mode))?;
        prune(decoded, custom, mode)
    }

    /// The same checks as decoding, on what is in memory already.
    pub(crate) fn check_fields(&self, object: Value, mode: FieldValidation) -> Result<Decoded, DecodeError> {
        let Some(custom) = self.custom else { return kedge_schema::validate_fields(object, self.schema, mode) };
        prune(kedge_schema::validate_fields(object, custom.reading(), heard(mode))?, custom, mode)
    }
}

/// What is strict is told together with what pruning finds.
fn heard(mode: FieldValidation) -> FieldValidation {
    if mode == FieldValidation::Strict { FieldValidation::Warn } else { mode }
}

/// Drops what the schema of a custom resource does not name.
fn prune(mut decoded: Decoded, version: &Version, mode: FieldValidation) -> Result<Decoded, DecodeError> {
    let unknown = version.prune(&mut decoded.value);
    if mode != FieldValidation::Ignore {
        decoded.warnings.extend(unknown);
    }
    match mode {
        FieldValidation::Strict if !decoded.warnings.is_empty() => Err(DecodeError::Strict(decoded.warnings)),
        _ => Ok(decoded),
    }
}

/// Reads the object that was sent.
pub(crate) async fn read_object(
    core: &Core,
    call: &mut Call,
    expected: Expected<'_>,
    validation: FieldValidation,
) -> Result<Value, ApiStatus> {
    Sent::read(core, call, expected, validation).await?.object()
}

/// An object that was sent, for writes that may have to be tried again: trees are dear to copy, so it is given away as it
/// was read, and read once more where it is asked for again.
pub(crate) struct Sent<'a> {
    body: Bytes,
    format: BodyFormat,
    expected: Expected<'a>,
    validation: FieldValidation,
    object: Mutex<Option<Value>>,
}

impl<'a> Sent<'a> {
    /// Reads the body of a call.
    pub(crate) async fn read(
        core: &Core,
        call: &mut Call,
        expected: Expected<'a>,
        validation: FieldValidation,
    ) -> Result<Self, ApiStatus> {
        let format = negotiate::body_format(&call.headers)?;
        let body = call.read_body(core.config.max_request_body_bytes).await?;
        let (object, warnings) = decode_body(&body, format, expected, validation)?;
        call.warnings.extend(warnings);
        Ok(Self { body, format, expected, validation, object: Mutex::new(Some(object)) })
    }

    /// The object.
    pub(crate) fn object(&self) -> Result<Value, ApiStatus> {
        match self.object.lock().take() {
            Some(object) => Ok(object),
            None => decode_body(&self.body, self.format, self.expected, self.validation).map(|(object, _)| object),
        }
    }

    /// Takes back what was given, for the next who asks.
    pub(crate) fn keep(&self, object: Value) {
        *self.object.lock() = Some(object);
    }
}

/// An object out of a body, with the warnings that it earns.
pub(crate) fn decode_body(
    body: &Bytes,
    format: BodyFormat,
    expected: Expected<'_>,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), ApiStatus> {
    let found = kedge_schema::peek_type_meta(body, format).map_err(|error| error.unrecognized(expected.kind, body))?;
    check_kind(&found.api_version, &found.kind, expected)?;
    let decoded = expected.decode(body, format, validation);
    let mut decoded = decoded.map_err(|error: DecodeError| error.bad_request(expected.kind, expected.version))?;
    set_kind(&mut decoded.value, expected);
    Ok((decoded.value, decoded.warnings))
}

fn check_kind(api_version: &str, kind: &str, expected: Expected<'_>) -> Result<(), ApiStatus> {
    if !api_version.is_empty() && api_version != expected.api_version {
        let text = format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            expected.api_version
        );
        return Err(ApiStatus::bad_request(text));
    }
    if !kind.is_empty() && kind != expected.kind {
        let (version, wanted) = (expected.version, expected.kind);
        let text = format!(
            "{kind} in version \"{version}\" cannot be handled as a {wanted}: converting ({version}.{kind}) to \
             ({version}.{wanted}): unknown conversion"
        );
        return Err(ApiStatus::bad_request(text));
    }
    Ok(())
}

fn set_kind(object: &mut Value, expected: Expected<'_>) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), expected.api_version.into());
        fields.insert("kind".to_owned(), expected.kind.into());
    }
}

/// Fields that a write through `subresource` does not own.
pub(crate) fn reset_fields(resource: &Resource, subresource: &str) -> &'static ResetFields<'static> {
    match subresource {
        "" if resource.kind.has_status() => &[&["status"]],
        "status" => &[&["spec"]],
        _ => &[],
    }
}

/// Who writes what, as managed fields note it.
pub(crate) fn writer<'a>(resource: &'a Resource, subresource: &'a str, manager: &'a str, time: &'a str) -> Writer<'a> {
    Writer { manager, api_version: &resource.api_version, kind: &resource.kind.kind, subresource, time }
}

/// Notes in `metadata.managedFields` who wrote what.
pub(crate) fn note_manager(
    resource: &Resource,
    subresource: &str,
    live: Option<&Value>,
    object: &mut Value,
    manager: &str,
    now: jiff::Timestamp,
) {
    let time = format_time(now);
    let writer = writer(resource, subresource, manager, &time);
    let reset = reset_fields(resource, subresource);
    kedge_schema::update_managed_fields(live, object, resource.schema(), &writer, reset);
}

/// Why a commit did not happen.
pub(crate) enum Refusal {
    /// Somebody else was first.
    Conflict,
    Status(ApiStatus),
}

impl From<ApiStatus> for Refusal {
    fn from(status: ApiStatus) -> Self {
        Self::Status(status)
    }
}

/// Commits an object: a new one where `old` is absent, else in the place of `old`.
pub(crate) async fn put(
    core: &Core,
    resource: &Arc<Resource>,
    key: kedge_store::Key,
    value: Template,
    old: Option<&Record>,
    mut effects: Effects,
) -> Result<Record, Refusal> {
    let ttl = resource.kind.strategy.time_to_live().map(|_| core.config.event_ttl);
    let expect = old.map_or(Expect::Absent, |old| Expect::Modified(old.modified));
    let mut conditions = vec![Condition { key: key.clone(), expect }];
    conditions.append(&mut effects.conditions);
    let mut writes = vec![Write::Put { key, value, ttl }];
    writes.append(&mut effects.writes);
    let transaction = Transaction { conditions, writes, durability: durability(resource) };
    let mut committed = commit(core, transaction).await?;
    Ok(committed.swap_remove(0))
}

/// Deletes an object that is as in `old`, and what it had reserved.
pub(crate) async fn remove(
    core: &Core,
    resource: &Resource,
    old: &Record,
    object: &Value,
) -> Result<Revision, Refusal> {
    let mut effects = core.admission.release(core, resource, object).await?;
    let key = old.key.clone();
    let mut conditions = vec![Condition { key: key.clone(), expect: Expect::Modified(old.modified) }];
    conditions.append(&mut effects.conditions);
    let mut writes = vec![Write::Delete { key }];
    writes.append(&mut effects.writes);
    let committed = core.store.commit(Transaction { conditions, writes, durability: durability(resource) }).await;
    committed.map(|committed| committed.revision).map_err(refusal)
}

async fn commit(core: &Core, transaction: Transaction) -> Result<Vec<Record>, Refusal> {
    core.store.commit(transaction).await.map(|committed| committed.records).map_err(refusal)
}

fn refusal(error: CommitError) -> Refusal {
    match error {
        CommitError::Conflict { .. } => Refusal::Conflict,
        CommitError::Store(error) => Refusal::Status(store_error(error)),
    }
}

/// Leases and what expires by itself need not wait for the disk.
fn durability(resource: &Resource) -> Durability {
    let lease = resource.is("coordination.k8s.io", "leases");
    match lease || resource.kind.strategy.time_to_live().is_some() {
        true => Durability::Relaxed,
        false => Durability::Durable,
    }
}

/// 400 unless name and namespace are those of the URL, or left out; fills them in.
pub(crate) fn place(resource: &Resource, object: &mut Value, namespace: &str, name: &str) -> Result<(), ApiStatus> {
    if resource.kind.namespaced {
        place_namespace(object, namespace)?;
    } else {
        object::metadata_mut(object).remove("namespace");
    }
    let given = object::name(object);
    if given.is_empty() {
        object::set_meta(object, "name", name);
    } else if given != name {
        let text = format!("the name of the object ({given}) does not match the name on the URL ({name})");
        return Err(ApiStatus::bad_request(text));
    }
    Ok(())
}

/// 400 unless the namespace is that of the request, or left out; fills it in.
pub(crate) fn place_namespace(object: &mut Value, namespace: &str) -> Result<(), ApiStatus> {
    let given = object::namespace(object);
    if given.is_empty() {
        object::set_meta(object, "namespace", namespace);
    } else if given != namespace {
        let text = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiStatus::bad_request(text));
    }
    Ok(())
}

/// Puts warnings into an answer's headers.
pub(crate) fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    let headers: &mut HeaderMap = response.headers_mut();
    for warning in warnings {
        let text: String = warning.chars().filter(|c| !c.is_control()).collect();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            headers.append(http::header::WARNING, value);
        }
    }
}
