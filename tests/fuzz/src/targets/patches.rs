//! Patches: an input is a list of the object and the patch.

use kedge_schema::{BodyFormat, FieldValidation, Schema, Writer};
use serde_json::Value;

use super::objects::schemas;
use super::{outcome, size};

const WRITER: Writer<'static> =
    Writer { manager: "m", api_version: "v1", kind: "Pod", subresource: "", time: "2026-01-02T03:04:05Z" };

/// The object and its patch.
fn pair(input: &[u8]) -> Option<(Value, Value)> {
    let read = kedge_schema::decode_untyped(input, BodyFormat::Json).ok()?.value;
    let Value::Array(mut parts) = read else { return None };
    let patch = parts.pop()?;
    Some((parts.pop()?, patch))
}

fn pod() -> Schema<'static> {
    schemas().next().expect("pods are known")
}

pub(super) fn json(input: &[u8]) -> u64 {
    let Some((target, patch)) = pair(input) else { return 0 };
    match kedge_schema::json_patch(target, &patch) {
        Ok(result) => checked(result),
        Err(error) => outcome(1, &error.to_string()),
    }
}

pub(super) fn merge(input: &[u8]) -> u64 {
    let Some((target, patch)) = pair(input) else { return 0 };
    let mut result = target.clone();
    kedge_schema::merge_patch(&mut result, &patch);
    let mut twice = result.clone();
    kedge_schema::merge_patch(&mut twice, &patch);
    assert_eq!(result, twice);
    let _ = kedge_schema::create_merge_patch(&target, &result);
    checked(result)
}

pub(super) fn strategic(input: &[u8]) -> u64 {
    let Some((target, patch)) = pair(input) else { return 0 };
    match kedge_schema::strategic_merge_patch(target, patch, pod()) {
        Ok(result) => checked(result),
        Err(error) => outcome(1, &error.to_string()),
    }
}

/// What comes out of a patch is read as an object.
fn checked(result: Value) -> u64 {
    let length = size(result.to_string().len());
    match kedge_schema::validate_fields(result, pod(), FieldValidation::Strict) {
        Ok(_) => outcome(2, "") ^ length,
        Err(error) => outcome(3, &error.to_string()) ^ length,
    }
}

pub(super) fn apply(input: &[u8]) -> u64 {
    let Some((live, mut patch)) = pair(input) else { return 0 };
    if !live.is_object() || !patch.is_object() {
        return 1;
    }
    patch["apiVersion"] = "v1".into();
    patch["kind"] = "Pod".into();
    let mut updated = patch.clone();
    kedge_schema::update_managed_fields(Some(&live), &mut updated, pod(), &WRITER, &[&["status"]]);
    let applied = match kedge_schema::apply(Some(&live), patch.clone(), pod(), &WRITER, true, &[&["status"]]) {
        Ok(applied) => applied.object,
        Err(error) => return outcome(1, &error.to_string()),
    };
    // An applied object is read before it is stored; what can be read is what settles.
    let Ok(stored) = kedge_schema::validate_fields(applied, pod(), FieldValidation::Strict) else { return 2 };
    let _ = kedge_schema::apply(Some(&stored.value), patch, pod(), &WRITER, false, &[&["status"]]);
    let managers = stored.value.pointer("/metadata/managedFields").map_or(0, |fields| fields.to_string().len());
    outcome(3, "") ^ size(managers)
}
