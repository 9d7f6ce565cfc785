//! `AdmissionReview`: what a webhook is asked about a request, and what its answer means. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use kedge_meta::{GroupVersionKind, GroupVersionResource, UserInfo};
use serde_json::{Map, Value, json};

/// The version in which questions are asked where a webhook takes several.
const GROUP: &str = "admission.k8s.io";

/// What a webhook is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// `v1` or `v1beta1`.
    pub review_version: &'a str,
    /// Of this question.
    pub uid: &'a str,
    /// The kind of the objects as they are sent.
    pub kind: &'a GroupVersionKind,
    /// The resource as the webhook knows it.
    pub resource: &'a GroupVersionResource,
    /// The kind that the request is about.
    pub request_kind: &'a GroupVersionKind,
    /// The resource that the request is about.
    pub request_resource: &'a GroupVersionResource,
    /// Empty for the main resource.
    pub subresource: &'a str,
    /// Empty where the object has none yet.
    pub name: &'a str,
    /// Empty where there is none; the name of a Namespace.
    pub namespace: &'a str,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: &'a str,
    /// Who asks.
    pub user: &'a UserInfo,
    /// The object; absent for deletions.
    pub object: Option<&'a Value>,
    /// The object before; absent for creations.
    pub old: Option<&'a Value>,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// The options of the operation; null where it has none.
    pub options: &'a Value,
}

fn kind(kind: &GroupVersionKind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn resource(resource: &GroupVersionResource) -> Value {
    json!({"group": resource.group, "version": resource.version, "resource": resource.resource})
}

fn put_text(fields: &mut Map<String, Value>, name: &str, text: &str) {
    if !text.is_empty() {
        fields.insert(name.to_owned(), text.into());
    }
}

impl Question<'_> {
    /// The document to send.
    pub fn review(&self) -> Value {
        let mut request = Map::new();
        request.insert("uid".to_owned(), self.uid.into());
        request.insert("kind".to_owned(), kind(self.kind));
        request.insert("resource".to_owned(), resource(self.resource));
        put_text(&mut request, "subResource", self.subresource);
        request.insert("requestKind".to_owned(), kind(self.request_kind));
        request.insert("requestResource".to_owned(), resource(self.request_resource));
        put_text(&mut request, "requestSubResource", self.subresource);
        put_text(&mut request, "name", self.name);
        put_text(&mut request, "namespace", self.namespace);
        request.insert("operation".to_owned(), self.operation.into());
        request.insert("userInfo".to_owned(), json!(self.user));
        request.insert("object".to_owned(), self.object.cloned().unwrap_or_default());
        request.insert("oldObject".to_owned(), self.old.cloned().unwrap_or_default());
        request.insert("dryRun".to_owned(), self.dry_run.into());
        request.insert("options".to_owned(), self.options.clone());
        json!({"kind": "AdmissionReview", "apiVersion": format!("{GROUP}/{}", self.review_version), "request": request})
    }

    /// `request` as expressions see it: without uid and objects, with every text there.
    pub fn for_expressions(&self) -> Value {
        let mut review = self.review();
        let mut request = review["request"].take();
        if let Some(fields) = request.as_object_mut() {
            for name in ["uid", "object", "oldObject"] {
                fields.remove(name);
            }
            for name in ["subResource", "requestSubResource", "name", "namespace"] {
                fields.entry(name).or_insert_with(|| Value::from(""));
            }
        }
        request
    }

    /// What an answer says; a text where it is none.
    pub fn verdict(&self, review: &Value, mutates: bool) -> Result<Verdict, String> {
        let response = review.get("response").filter(|response| response.is_object());
        let response = response.ok_or("webhook response was absent")?;
        let is_first = self.review_version != "v1";
        if !is_first {
            check_envelope(review, response, self.uid)?;
        }
        let patch_type = response.get("patchType").and_then(Value::as_str);
        let patch = response["patch"].as_str().unwrap_or_default();
        match (mutates, patch.is_empty(), patch_type) {
            (false, false, _) if !is_first => return Err("validating webhook may not return response.patch".to_owned()),
            (false, _, Some(_)) if !is_first => {
                return Err("validating webhook may not return response.patchType".to_owned());
            }
            (true, false, None) if !is_first => {
                return Err("webhook returned response.patch but not response.patchType".to_owned());
            }
            (true, true, Some(_)) if !is_first => {
                return Err("webhook returned response.patchType but not response.patch".to_owned());
            }
            (true, false, Some(kind)) if kind != "JSONPatch" && !is_first => {
                return Err(format!("unsupported patch type \"{kind}\""));
            }
            _ => {}
        }
        let patch = if mutates { read_patch(patch)? } else { Value::Null };
        let texts = |list: &Value| -> Vec<String> {
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
        Ok(Verdict {
            allowed: response["allowed"].as_bool().unwrap_or_default(),
            patch: Some(patch).filter(|patch| patch.as_array().is_some_and(|steps| !steps.is_empty())),
            status: response["status"].clone(),
            warnings: texts(&response["warnings"]),
            annotations: annotations
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
        })
    }
}

fn check_envelope(review: &Value, response: &Value, uid: &str) -> Result<(), String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let answered = text(&response["uid"]);
    if answered != uid {
        return Err(format!("expected response.uid=\"{uid}\", got \"{answered}\""));
    }
    let (api_version, kind) = (text(&review["apiVersion"]), text(&review["kind"]));
    if api_version != format!("{GROUP}/v1") || kind != "AdmissionReview" {
        let wanted = format!("{GROUP}/v1, Kind=AdmissionReview");
        return Err(format!("expected webhook response of {wanted}, got {api_version}, Kind={kind}"));
    }
    Ok(())
}

fn read_patch(patch: &str) -> Result<Value, String> {
    if patch.is_empty() {
        return Ok(Value::Null);
    }
    let undecodable = |why: String| format!("received undecodable patch in webhook response: {why}");
    let bytes = base64::engine::general_purpose::STANDARD.decode(patch);
    let bytes = bytes.map_err(|error| undecodable(error.to_string()))?;
    let patch: Value = serde_json::from_slice(&bytes).map_err(|error| undecodable(error.to_string()))?;
    if patch.is_array() { Ok(patch) } else { Err(undecodable("it is no list of operations".to_owned())) }
}

/// What a webhook says.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Whether the request may go on.
    pub allowed: bool,
    /// A JSON patch with at least one step.
    pub patch: Option<Value>,
    /// `metav1.Status` of a refusal; null where the webhook does not say.
    pub status: Value,
    /// Texts for whoever made the request.
    pub warnings: Vec<String>,
    /// Texts for the audit log.
    pub annotations: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(check: impl FnOnce(&Question<'_>)) {
        let kind = GroupVersionKind::new("apps", "v1", "Deployment");
        let resource = GroupVersionResource::new("apps", "v1", "deployments");
        let user = UserInfo::authenticated("a", ["g"]);
        check(&Question {
            review_version: "v1",
            uid: "u",
            kind: &kind,
            resource: &resource,
            request_kind: &kind,
            request_resource: &resource,
            subresource: "",
            name: "web",
            namespace: "default",
            operation: "CREATE",
            user: &user,
            object: Some(&json!({"kind": "Deployment"})),
            old: None,
            dry_run: true,
            options: &json!({"kind": "CreateOptions"}),
        });
    }

    #[test]
    fn questions_are_written_as_upstream_writes_them() {
        with(|question| {
            let review = question.review();
            assert_eq!(
                review,
                json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
                    "uid": "u", "name": "web", "namespace": "default", "operation": "CREATE", "dryRun": true,
                    "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
                    "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
                    "requestKind": {"group": "apps", "version": "v1", "kind": "Deployment"},
                    "requestResource": {"group": "apps", "version": "v1", "resource": "deployments"},
                    "userInfo": {"username": "a", "groups": ["g", "system:authenticated"]},
                    "object": {"kind": "Deployment"}, "oldObject": null, "options": {"kind": "CreateOptions"}}})
            );
            let seen = question.for_expressions();
            assert_eq!((&seen["subResource"], &seen["object"]), (&json!(""), &Value::Null));
        });
    }

    #[test]
    fn answers_are_held_to_the_question() {
        let answer = |response: Value| json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        let check = |review: Value, mutates: bool, expected: Result<bool, &str>| {
            with(|question| {
                let verdict = question.verdict(&review, mutates);
                let allowed = verdict.as_ref().map(|verdict| verdict.allowed);
                assert_eq!(allowed.map_err(String::as_str), expected, "{review}");
            });
        };
        check(answer(json!({"uid": "u", "allowed": true})), true, Ok(true));
        check(answer(json!({"uid": "u"})), false, Ok(false));
        check(json!({}), true, Err("webhook response was absent"));
        check(answer(json!({"uid": "x"})), true, Err("expected response.uid=\"u\", got \"x\""));
        check(
            json!({"kind": "Status", "apiVersion": "v1", "response": {"uid": "u"}}),
            true,
            Err("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got v1, Kind=Status"),
        );
        let patched = json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"});
        check(answer(patched.clone()), true, Ok(true));
        check(answer(patched), false, Err("validating webhook may not return response.patch"));
        check(
            answer(json!({"uid": "u", "allowed": true, "patch": "W10="})),
            true,
            Err("webhook returned response.patch but not response.patchType"),
        );
    }
}
