//! `ConversionReview`: custom resources turned into another version by their definition's webhook.
//!
//! Invariant: of an object's metadata a webhook changes nothing but labels and annotations.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kedge_meta::{is_label_value, is_qualified_name};
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::credentials::Credentials;
use crate::target::Target;

const GROUP: &str = "apiextensions.k8s.io";

/// How long a conversion may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why objects could not be converted, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConvertError(String);

/// Converts the objects of one definition.
pub struct Converter {
    client: Arc<Client>,
    /// The definition's.
    name: String,
    target: Result<Target, String>,
    review_version: Option<&'static str>,
    /// The definition's `spec.conversion`, in its short form.
    source: String,
}

impl std::fmt::Debug for Converter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Converter").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Converter {
    /// Out of the `spec.conversion` of the definition `name`; absent unless that names a webhook.
    pub fn read(client: &Arc<Client>, name: &str, conversion: &Value) -> Option<Self> {
        if conversion["strategy"] != "Webhook" {
            return None;
        }
        let webhook = &conversion["webhook"];
        let versions = webhook["conversionReviewVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let known = |version: &str| ["v1", "v1beta1"].into_iter().find(|known| *known == version);
        Some(Self {
            client: Arc::clone(client),
            name: name.to_owned(),
            target: Target::read(&webhook["clientConfig"]),
            review_version: versions.filter_map(known).next(),
            source: conversion.to_string(),
        })
    }

    /// What it was made of: the same text makes the same converter.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Objects in another version, in one call; `what` is their group, version and kind, for errors. None of them is in
    /// `api_version` already.
    pub async fn convert(&self, what: &str, objects: &[Value], api_version: &str) -> Result<Vec<Value>, ConvertError> {
        if objects.is_empty() {
            return Ok(Vec::new());
        }
        let began = Instant::now();
        let converted = self.ask(objects, api_version).await;
        let failure = converted.as_ref().err().map(|(kind, _)| *kind);
        let took = began.elapsed();
        self.client.conversions.ended(failure, took);
        let from = objects.iter().filter_map(|object| object["apiVersion"].as_str()).map(version_of).collect();
        self.client.conversions.converted(&self.name, &from, version_of(api_version), failure.is_none(), took);
        converted.map_err(|(_, why)| ConvertError(format!("conversion webhook for {what} {why}")))
    }

    /// The same; an error has upstream's word for its kind.
    async fn ask(&self, objects: &[Value], api_version: &str) -> Result<Vec<Value>, (&'static str, String)> {
        let called = |why: String| ("conversion_webhook_call_failure", format!("failed: {why}"));
        let no_version = || called("no supported conversion review versions".to_owned());
        let version = self.review_version.ok_or_else(no_version)?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({"kind": "ConversionReview", "apiVersion": format!("{GROUP}/{version}"),
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects}});
        let target = self.target.as_ref().map_err(|why| called(why.clone()))?;
        let nobody = Credentials::default();
        let answer = self.client.post(target, &nobody, &review, TIMEOUT, true).await;
        let mut answer = answer.map_err(|error| called(error.text))?;
        let converted = converted(&mut answer, &uid, version);
        let converted =
            converted.map_err(|why| ("conversion_webhook_malformed_response_failure", format!("failed: {why}")))?;
        if converted.len() != objects.len() {
            let why = format!("returned {} objects, expected {}", converted.len(), objects.len());
            return Err(("conversion_webhook_partial_response_failure", why));
        }
        let pairs = objects.iter().zip(converted).enumerate();
        let settled = pairs.map(|(index, (old, new))| settle(old, new, api_version, index));
        let settled: Result<Vec<Value>, String> = settled.collect();
        settled.map_err(|why| ("conversion_webhook_invalid_converted_object_failure", why))
    }
}

/// The version of `group/version`.
fn version_of(api_version: &str) -> &str {
    api_version.rsplit('/').next().unwrap_or_default()
}

/// The objects of an answer.
fn converted(review: &mut Value, uid: &str, version: &str) -> Result<Vec<Value>, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text(&review["apiVersion"]), text(&review["kind"]));
    let is_held = version == "v1";
    if is_held && (api_version != format!("{GROUP}/v1") || kind != "ConversionReview") {
        let wanted = format!("{GROUP}/v1, Kind=ConversionReview");
        return Err(format!("expected webhook response of {wanted}, got {api_version}, Kind={kind}"));
    }
    let Some(response) = review.get_mut("response").filter(|response| response.is_object()) else {
        return Err("no response provided".to_owned());
    };
    let answered = text(&response["uid"]);
    if is_held && answered != uid {
        return Err(format!("expected response.uid=\"{uid}\", got \"{answered}\""));
    }
    let (status, message) = (text(&response["result"]["status"]), text(&response["result"]["message"]));
    match (status.as_str(), message.is_empty()) {
        ("Success", _) => {}
        (_, false) => return Err(message),
        (_, true) => return Err(format!("response.result.status was '{status}', not 'Success'")),
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// A converted object with the metadata that it had.
fn settle(old: &Value, mut new: Value, api_version: &str, index: usize) -> Result<Value, String> {
    let invalid = |why: String| format!("returned invalid converted object at index {index}: {why}");
    let text = |object: &Value, path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let received = text(&new, "/apiVersion");
    if received != api_version {
        return Err(invalid(format!("invalid groupVersion (expected {api_version}, received {received})")));
    }
    let (expected, received) = (text(old, "/kind"), text(&new, "/kind"));
    if expected != received {
        return Err(invalid(format!("invalid kind (expected {expected}, received {received})")));
    }
    for (what, path) in [("name", "/metadata/name"), ("namespace", "/metadata/namespace"), ("UID", "/metadata/uid")] {
        let (before, after) = (text(old, path), text(&new, path));
        if before != after {
            return Err(invalid(format!("must have the same {what}: {before} != {after}")));
        }
    }
    let metadata = restored(old, &new);
    let metadata = metadata.map_err(|why| format!("returned invalid metadata in object at index {index}: {why}"))?;
    new["metadata"] = metadata;
    Ok(new)
}

/// The metadata before, with the labels and annotations after.
fn restored(old: &Value, new: &Value) -> Result<Value, String> {
    let given = new.get("metadata").ok_or("missing metadata in converted object")?;
    let given = given.as_object().ok_or("invalid metadata in converted object")?;
    let mut metadata = old["metadata"].as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match given.get(field) {
            None | Some(Value::Null) => drop(metadata.remove(field)),
            Some(Value::Object(texts)) => {
                if metadata.get(field).and_then(Value::as_object) != Some(texts) {
                    check_texts(field, texts)?;
                }
                metadata.insert(field.to_owned(), Value::Object(texts.clone()));
            }
            Some(_) => return Err(format!("invalid metadata.{field} in converted object")),
        }
    }
    Ok(Value::Object(metadata))
}

fn check_texts(field: &str, texts: &Map<String, Value>) -> Result<(), String> {
    for (key, value) in texts {
        let Some(value) = value.as_str() else {
            return Err(format!("metadata.{field}[{key}] must be a string in converted object"));
        };
        // The keys of annotations may be written in any case.
        let key_holds = is_qualified_name(if field == "labels" { key.clone() } else { key.to_lowercase() }.as_str());
        if !key_holds {
            return Err(format!("metadata.{field}: Invalid value: \"{key}\": name part must be a qualified name"));
        }
        if field == "labels" && !is_label_value(value) {
            return Err(format!("metadata.labels: Invalid value: \"{value}\": must be a valid label value"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_stays() {
        let old = json!({"apiVersion": "a.io/v1", "kind": "T",
            "metadata": {"name": "a", "uid": "1", "labels": {"x": "1"}, "annotations": {"k": "1"}, "generation": 2}});
        let with = |change: fn(&mut Value)| {
            let mut new = old.clone();
            new["apiVersion"] = json!("a.io/v2");
            change(&mut new);
            settle(&old, new, "a.io/v2", 0)
        };
        let kept = with(|new| {
            new["metadata"]["generation"] = json!(9);
            new["metadata"]["labels"] = json!({"y": "2"});
            new["metadata"].as_object_mut().unwrap().remove("annotations");
        });
        assert_eq!(kept.unwrap()["metadata"], json!({"name": "a", "uid": "1", "labels": {"y": "2"}, "generation": 2}));
        for (result, expected) in [
            (
                with(|new| new["apiVersion"] = json!("a.io/v3")),
                "invalid groupVersion (expected a.io/v2, received a.io/v3)",
            ),
            (with(|new| new["kind"] = json!("U")), "invalid kind (expected T, received U)"),
            (with(|new| new["metadata"]["uid"] = json!("2")), "must have the same UID: 1 != 2"),
            (with(|new| new["metadata"]["labels"] = json!({"y": 2})), "metadata.labels[y] must be a string"),
            (with(|new| new["metadata"]["labels"] = json!({"y": "a b"})), "must be a valid label value"),
            (with(|new| *new = json!({"apiVersion": "a.io/v2", "kind": "T"})), "must have the same name: a != "),
        ] {
            let text = result.unwrap_err();
            assert!(text.contains(expected), "{text}");
        }
    }
}
