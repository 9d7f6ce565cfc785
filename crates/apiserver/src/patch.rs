//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.
//!
//! Invariant: the patched object passes the same decoding, defaults and validation as one that was sent whole.

use std::sync::Arc;

use http::StatusCode;
use kedge_meta::{ApiStatus, FieldError, FieldPath, StatusReason, format_time};
use kedge_schema::{BodyFormat, FieldValidation, ResetFields, Schema, Writer};
use serde_json::Value;

use crate::admission::Seen;
use crate::call::Call;
use crate::core::Core;
use crate::create::New;
use crate::present::View;
use crate::registry::Resource;
use crate::reply::Reply;
use crate::update::{Edited, Update};
use crate::write::{self, Expected, WriteOptions};
use crate::{negotiate, object};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Upstream's bound for the operations of a JSON patch.
const MAX_OPERATIONS: usize = 10_000;

/// A patch as it was sent.
pub(crate) enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply { patch: Value, force: bool },
}

/// Reads a patch and what goes with it.
pub(crate) async fn read(core: &Core, call: &mut Call, options: &WriteOptions) -> Result<Patch, ApiStatus> {
    let content_type = negotiate::content_type(&call.headers);
    check_options(call, content_type == APPLY_PATCH)?;
    let format = match content_type.as_str() {
        JSON_PATCH | MERGE_PATCH | STRATEGIC_PATCH => BodyFormat::Json,
        APPLY_PATCH => BodyFormat::Yaml,
        _ => {
            let all = [JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH].join(", ");
            return Err(negotiate::unsupported_media_type(&all));
        }
    };
    let body = call.read_body(core.config.max_request_body_bytes).await?;
    let decoded = kedge_schema::decode_untyped(&body, format);
    let decoded = decoded.map_err(|error| ApiStatus::bad_request(error.to_string()))?;
    match options.validation {
        FieldValidation::Strict if !decoded.duplicates.is_empty() => {
            return Err(ApiStatus::bad_request(decoded.strict_error()));
        }
        FieldValidation::Warn => call.warnings.extend(decoded.duplicates),
        _ => {}
    }
    let value = decoded.value;
    match content_type.as_str() {
        JSON_PATCH => check_operations(&value).map(|()| Patch::Json(value)),
        MERGE_PATCH => Ok(Patch::Merge(value)),
        STRATEGIC_PATCH => Ok(Patch::Strategic(value)),
        _ => Ok(Patch::Apply { patch: value, force: call.query.flag("force") }),
    }
}

fn check_operations(patch: &Value) -> Result<(), ApiStatus> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count <= MAX_OPERATIONS {
        return Ok(());
    }
    let text = format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}");
    Err(ApiStatus::new(413, StatusReason::RequestEntityTooLarge, text))
}

/// The rules of upstream's `ValidatePatchOptions`.
fn check_options(call: &Call, apply: bool) -> Result<(), ApiStatus> {
    let mut errors = Vec::new();
    if apply && call.query.non_empty("fieldManager").is_none() {
        errors.push(FieldError::required(&FieldPath::new("fieldManager"), "is required for apply patch"));
    }
    if !apply && call.query.get("force").is_some() {
        errors.push(FieldError::forbidden(&FieldPath::new("force"), "may not be specified for non-apply patch"));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiStatus::invalid("meta.k8s.io", "PatchOptions", "", &errors)) }
}

/// PATCH of an object or of one of its parts that have the object's own kind.
pub(crate) async fn patch(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    let view = View::of(call, resource)?;
    let options = WriteOptions::of(call)?;
    let patch = read(core, call, &options).await?;
    if resource.custom.is_some() && matches!(patch, Patch::Strategic(_)) {
        return Err(negotiate::unsupported_media_type(&[JSON_PATCH, MERGE_PATCH, APPLY_PATCH].join(", ")));
    }
    let target = call.resource().clone();
    if let Patch::Apply { patch, .. } = &patch {
        let place = resource.kind.namespaced.then_some(target.namespace.as_str());
        check_applied(patch, (&resource.api_version, &resource.kind.kind), place, &target.name)?;
        let missing = core.find(resource, &target.namespace, &target.name).await?.is_none();
        if missing && target.subresource.is_empty() {
            return create_by_apply(core, call, resource, &view, &options, patch.clone()).await;
        }
    }
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
    let time = format_time(call.now);
    let writer = write::writer(resource, &target.subresource, &options.manager, &time);
    let reset = write::reset_fields(resource, &target.subresource);
    let expected = Expected::of(resource);
    let outcome = update.run(&|live| patched(live, &patch, expected, &writer, reset, options.validation)).await?;
    call.warnings.extend(outcome.warnings);
    Ok(view.object(resource, StatusCode::OK, &outcome.stored))
}

/// What a patch makes of an object.
pub(crate) fn patched(
    live: &Value,
    patch: &Patch,
    expected: Expected<'_>,
    writer: &Writer<'_>,
    reset: &ResetFields<'_>,
    validation: FieldValidation,
) -> Result<Edited, ApiStatus> {
    if let Patch::Apply { patch, force } = patch {
        return applied(live, patch, *force, expected, writer, reset);
    }
    let object = written_over(live, patch, expected.schema)?;
    check_kept(live, &object)?;
    let decoded = expected.check_fields(object, validation).map_err(|error| {
        let shown = match patch {
            Patch::Strategic(patch) => patch.to_string(),
            _ => written_over(live, patch, expected.schema).unwrap_or_default().to_string(),
        };
        let error = FieldError::invalid(&FieldPath::new("patch"), &Value::from(shown), &error.to_string());
        ApiStatus::invalid("", "", "", &[error])
    })?;
    Ok(Edited { warnings: decoded.warnings, ..Edited::new(decoded.value) })
}

/// The object with a patch written over it. (What is applied goes another way, in which owners count.)
fn written_over(live: &Value, patch: &Patch, schema: Schema<'_>) -> Result<Value, ApiStatus> {
    let patched = match patch {
        Patch::Json(patch) => kedge_schema::json_patch(live.clone(), patch),
        Patch::Strategic(patch) => kedge_schema::strategic_merge_patch(live.clone(), patch.clone(), schema),
        Patch::Merge(patch) | Patch::Apply { patch, .. } => {
            let mut target = live.clone();
            kedge_schema::merge_patch(&mut target, patch);
            Ok(target)
        }
    };
    patched.map_err(kedge_schema::PatchError::into_status)
}

fn applied(
    live: &Value,
    patch: &Value,
    force: bool,
    expected: Expected<'_>,
    writer: &Writer<'_>,
    reset: &ResetFields<'_>,
) -> Result<Edited, ApiStatus> {
    let applied = kedge_schema::apply(Some(live), patch.clone(), expected.schema, writer, force, reset);
    let applied = applied.map_err(kedge_schema::ApplyError::into_status)?;
    // Applying has checked the fields; this brings values into their one form.
    let decoded = expected.check_fields(applied.object, FieldValidation::Ignore);
    let decoded = decoded.map_err(|error| error.bad_request(expected.kind, expected.version))?;
    Ok(Edited { has_managers: true, is_unchanged: !applied.changed, ..Edited::new(decoded.value) })
}

/// A patch may not turn an object into one of another kind.
fn check_kept(live: &Value, patched: &Value) -> Result<(), ApiStatus> {
    let same = |field: &str| {
        let now = object::text(patched, &[field]);
        now.is_empty() || now == object::text(live, &[field])
    };
    if patched.is_object() && same("apiVersion") && same("kind") {
        return Ok(());
    }
    let (kind, api_version) = (object::text(patched, &["kind"]), object::text(patched, &["apiVersion"]));
    Err(ApiStatus::bad_request(format!("the patched object is a {api_version} {kind} and no longer what it was")))
}

/// What must hold of an applied configuration before it is looked at: `expected` are its version and kind, `namespace` is
/// where its object is, if anywhere.
pub(crate) fn check_applied(
    patch: &Value,
    expected: (&str, &str),
    namespace: Option<&str>,
    name: &str,
) -> Result<(), ApiStatus> {
    if !patch.is_object() {
        return Err(ApiStatus::bad_request("error decoding YAML: the applied configuration is not an object"));
    }
    if object::at(patch, &["metadata", "managedFields"]).and_then(Value::as_array).is_some_and(|list| !list.is_empty())
    {
        return Err(ApiStatus::bad_request("metadata.managedFields must be nil"));
    }
    let (api_version, kind) = (object::text(patch, &["apiVersion"]), object::text(patch, &["kind"]));
    if api_version.is_empty() || kind.is_empty() {
        let text = format!("invalid object type: /, Kind={kind}");
        return Err(ApiStatus::bad_request(text));
    }
    if (api_version, kind) != expected {
        let text = format!(
            "patch object is {api_version}, Kind={kind}, but the resource is {}, Kind={}",
            expected.0, expected.1
        );
        return Err(ApiStatus::bad_request(text));
    }
    let given = object::name(patch);
    if !given.is_empty() && given != name {
        let text = format!("the name of the object ({given}) does not match the name on the URL ({name})");
        return Err(ApiStatus::bad_request(text));
    }
    let given = object::namespace(patch);
    if namespace.is_some_and(|namespace| !given.is_empty() && given != namespace) {
        let text = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiStatus::bad_request(text));
    }
    Ok(())
}

async fn create_by_apply(
    core: &Core,
    call: &mut Call,
    resource: &Arc<Resource>,
    view: &View,
    options: &WriteOptions,
    mut patch: Value,
) -> Reply {
    let target = call.resource().clone();
    if !object::meta(&patch, "uid").is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {}, and no existing object was found",
            object::meta(&patch, "uid")
        );
        return Err(ApiStatus::conflict(&resource.group_resource, &target.name, &why));
    }
    write::place(resource, &mut patch, &target.namespace, &target.name)?;
    let time = format_time(call.now);
    let writer = write::writer(resource, "", &options.manager, &time);
    let reset = write::reset_fields(resource, "");
    let applied = kedge_schema::apply(None, patch, resource.schema(), &writer, false, reset);
    let applied = applied.map_err(kedge_schema::ApplyError::into_status)?.object;
    let decoded = Expected::of(resource).check_fields(applied, FieldValidation::Ignore);
    let decoded = decoded.map_err(|error| error.bad_request(&resource.kind.kind, &resource.kind.version))?;
    call.warnings.extend(decoded.warnings);
    let new = New { core, user: &call.user, resource, options, now: call.now };
    let created = new.create(&|| Ok(decoded.value.clone()), false).await?;
    call.warnings.extend(created.warnings);
    Ok(view.object(resource, StatusCode::CREATED, &created.stored))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(live: Value, patch: Patch, expected: Result<Value, &str>) {
        let kind = kedge_kinds::builtin_by_resource("", "v1", "configmaps").unwrap().clone();
        let resource = Resource::new(kind);
        let writer = write::writer(&resource, "", "m", "2026-01-01T00:00:00Z");
        let actual = patched(&live, &patch, Expected::of(&resource), &writer, &[], FieldValidation::Strict);
        match (actual, expected) {
            (Ok(edited), Ok(expected)) => assert_eq!(edited.object["data"], expected),
            (Err(status), Err(text)) => assert!(status.message.contains(text), "{}", status.message),
            (actual, _) => panic!("{:?}", actual.map(|edited| edited.object)),
        }
    }

    #[test]
    fn patches() {
        let live = || json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "1"}});
        check(live(), Patch::Merge(json!({"data": {"a": null, "b": "2"}})), Ok(json!({"b": "2"})));
        check(live(), Patch::Strategic(json!({"data": {"b": "2"}})), Ok(json!({"a": "1", "b": "2"})));
        check(
            live(),
            Patch::Json(json!([{"op": "add", "path": "/data/b", "value": "2"}])),
            Ok(json!({"a": "1", "b": "2"})),
        );
        check(live(), Patch::Merge(json!({"kind": "Secret"})), Err("no longer what it was"));
        check(live(), Patch::Merge(json!({"dat": {}})), Err("unknown field"));
        check(live(), Patch::Merge(json!("x")), Err("no longer what it was"));
    }
}
