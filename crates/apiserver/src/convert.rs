//! Custom resources in another version, where their definition leaves that to a webhook; other kinds convert by
//! themselves and pass through here as they are.
//!
//! Objects are converted where they are read and where they are written, many in one call; what lies between sees the
//! version of the request. Invariant: an object that is in the right version already is never sent to a webhook.

use std::sync::Arc;

use bytes::Bytes;
use kedge_meta::{ApiStatus, StatusReason};
use kedge_store::{Change, Record, Template};
use kedge_webhooks::{ConvertError, Converter};
use serde_json::Value;

use crate::core::decode;
use crate::registry::Resource;
use crate::{encode, scan};

fn failed(error: ConvertError) -> ApiStatus {
    ApiStatus::new(500, StatusReason::Unknown, error.to_string())
}

/// An object of one resource as another one over the same store prefix has it.
pub(crate) async fn between(from: &Resource, to: &Resource, object: &Value) -> Result<Value, ApiStatus> {
    if let Some(converter) = from.converter() {
        return one(converter, from, object, &to.api_version).await;
    }
    let mut object = object.clone();
    from.kind.to_storage(&mut object);
    to.kind.from_storage(&mut object);
    Ok(object)
}

async fn one(
    converter: &Converter,
    resource: &Resource,
    object: &Value,
    api_version: &str,
) -> Result<Value, ApiStatus> {
    let own = object["apiVersion"].as_str().unwrap_or_default();
    if own == api_version {
        return Ok(object.clone());
    }
    let what = format!("{own}, Kind={}", resource.kind.kind);
    let converted = converter.convert(&what, std::slice::from_ref(object), api_version).await.map_err(failed)?;
    converted.into_iter().next().ok_or_else(|| ApiStatus::internal("a conversion gave no object"))
}

/// An object as it goes into the store.
pub(crate) async fn template(resource: &Resource, object: &Value) -> Result<Template, ApiStatus> {
    let stored = &resource.kind.storage_api_version;
    if let Some(converter) = resource.converter() {
        return Ok(encode::template(&one(converter, resource, object, stored).await?));
    }
    Ok(own_template(resource, object))
}

/// The same for a kind that no webhook converts.
pub(crate) fn own_template(resource: &Resource, object: &Value) -> Template {
    if resource.is_storage_version {
        return encode::template(object);
    }
    let mut stored = object.clone();
    resource.kind.to_storage(&mut stored);
    encode::template(&stored)
}

/// A stored object in memory, in the version of a resource.
pub(crate) async fn live(resource: &Resource, record: &Record) -> Result<Value, ApiStatus> {
    let mut live = decode(record)?;
    if let Some(converter) = resource.converter() {
        live = one(converter, resource, &live, &resource.api_version).await?;
    }
    resource.kind.from_storage(&mut live);
    Ok(live)
}

/// A stored object's bytes in the version of a resource.
pub(crate) async fn bytes(resource: &Resource, stored: Bytes) -> Result<Bytes, ApiStatus> {
    let Some(converter) = resource.converter().filter(|_| is_other(resource, &stored)) else { return Ok(stored) };
    let object: Value = serde_json::from_slice(&stored).map_err(ApiStatus::internal)?;
    Ok(one(converter, resource, &object, &resource.api_version).await?.to_string().into())
}

/// A record in the version of a resource.
pub(crate) async fn record(resource: &Resource, record: Record) -> Result<Record, ApiStatus> {
    let mut record = record;
    convert(resource, vec![&mut record]).await?;
    Ok(record)
}

/// Records in the version of a resource, in one call.
pub(crate) async fn records(resource: &Resource, mut records: Vec<Record>) -> Result<Vec<Record>, ApiStatus> {
    if resource.converter().is_some() {
        convert(resource, records.iter_mut().collect()).await?;
    }
    Ok(records)
}

/// Changes of records in the version of a resource, in one call.
pub(crate) async fn changes(resource: &Resource, changes: Vec<Arc<Change>>) -> Result<Vec<Arc<Change>>, ApiStatus> {
    if resource.converter().is_none() {
        return Ok(changes);
    }
    let mut changes: Vec<Change> = changes.into_iter().map(Arc::unwrap_or_clone).collect();
    let mut both = Vec::with_capacity(2 * changes.len());
    for change in &mut changes {
        both.push(&mut change.record);
        both.extend(change.previous.as_mut());
    }
    convert(resource, both).await?;
    Ok(changes.into_iter().map(Arc::new).collect())
}

fn is_other(resource: &Resource, stored: &[u8]) -> bool {
    scan::text(stored, &["apiVersion"]) != resource.api_version.as_str()
}

async fn convert(resource: &Resource, records: Vec<&mut Record>) -> Result<(), ApiStatus> {
    let Some(converter) = resource.converter() else { return Ok(()) };
    let mut others = Vec::new();
    for record in records {
        if is_other(resource, &record.value) {
            others.push(record);
        }
    }
    let mut objects = Vec::with_capacity(others.len());
    for record in &others {
        objects.push(decode(record)?);
    }
    let what = format!("{}, Kind={}", resource.api_version, resource.kind.list_kind);
    let converted = converter.convert(&what, &objects, &resource.api_version).await.map_err(failed)?;
    for (record, object) in others.into_iter().zip(converted) {
        let template = encode::template(&object);
        record.value = template.render(record.modified);
        record.splice_at = template.splice_at;
    }
    Ok(())
}
