//! `serviceaccounts/token`: tokens that are bound to a pod, secret or node, and end by themselves.

use std::sync::Arc;

use http::StatusCode;
use kedge_auth::{TokenSubject, service_account_claims};
use kedge_meta::{ApiStatus, FieldError, FieldPath, GroupResource, GroupVersionKind, format_time};
use serde_json::{Value, json};

use crate::admission::{Attributes, Operation, Seen, Told};
use crate::call::Call;
use crate::core::{Core, new_uid};
use crate::object;
use crate::registry::Resource;
use crate::reply::{self, Reply};
use crate::write::{self, Expected, WriteOptions};

const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;

/// POST of a `TokenRequest`.
pub(super) async fn issue(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    if call.verb != "create" {
        return Err(ApiStatus::method_not_allowed());
    }
    let encoding = call.accepted_object()?;
    let options = WriteOptions::of(call)?;
    let api_version = "authentication.k8s.io/v1";
    let expected = Expected::builtin("authentication.k8s.io", "v1", "TokenRequest", api_version);
    let mut request = write::read_object(core, call, expected, options.validation).await?;
    let target = call.resource().clone();
    let record = core.record(resource, &target.namespace, &target.name).await?;
    let account = crate::core::decode(&record)?;
    let kind = GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest");
    let described = options.described(true);
    let told = Told { options: &described, dry_run: options.dry_run, notes: &call.notes, seen: Seen::As(&kind) };
    let attributes = Attributes::of(core, call, resource, Operation::Create, told);
    core.admission.admit(&attributes, &mut request).await?;
    let seconds = check(&request, &target.name)?;
    let mut audiences = texts(&request, &["spec", "audiences"]);
    if audiences.is_empty() {
        audiences = core.config.audiences();
    }
    core.admission.validate(&attributes, &request).await?;
    let bound = bound_object(core, &request, &target.namespace, &target.name).await?;
    let subject = TokenSubject { name: target.name.clone(), uid: object::meta(&account, "uid").to_owned() };
    let id = new_uid();
    let credential = "authentication.kubernetes.io/issued-credential-id";
    call.notes.annotate(credential.to_owned(), format!("JTI={id}"));
    let claims = claims(core, &id, &audiences, &target.namespace, &subject, bound.as_ref(), call.now, seconds);
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(seconds);
    let metadata =
        json!({"name": target.name, "namespace": target.namespace, "creationTimestamp": format_time(call.now)});
    request["metadata"] = metadata;
    let expires = format_time(call.now + std::time::Duration::from_secs(seconds.unsigned_abs()));
    let token = if options.dry_run { String::new() } else { core.token_keys.load().issue(&claims) };
    request["status"] = json!({"token": token, "expirationTimestamp": expires});
    Ok(reply::document(StatusCode::CREATED, encoding, &request))
}

#[expect(clippy::too_many_arguments, reason = "they are what stands in a token")]
fn claims(
    core: &Core,
    id: &str,
    audiences: &[String],
    namespace: &str,
    subject: &TokenSubject,
    bound: Option<&Bound>,
    now: jiff::Timestamp,
    seconds: i64,
) -> Value {
    let to = bound.map(|bound| (bound.kind, &bound.subject));
    let node = bound.and_then(|bound| bound.node.as_ref());
    let issuer = &core.config.service_account_issuer;
    service_account_claims(issuer, audiences, namespace, subject, to, node, id, now, seconds)
}

fn texts(object: &Value, path: &[&str]) -> Vec<String> {
    object::list(object, path).iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// The seconds that are asked for, if the request is in order.
fn check(request: &Value, name: &str) -> Result<i64, ApiStatus> {
    let seconds =
        object::at(request, &["spec", "expirationSeconds"]).and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS);
    let path = FieldPath::new("spec").child("expirationSeconds");
    let why = match seconds {
        ..MIN_SECONDS => "may not specify a duration less than 10 minutes",
        MIN_SECONDS..=MAX_SECONDS => return Ok(seconds),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let error = FieldError::invalid(&path, &json!(seconds), why);
    Err(ApiStatus::invalid("authentication.k8s.io", "TokenRequest", name, &[error]))
}

struct Bound {
    kind: &'static str,
    subject: TokenSubject,
    node: Option<TokenSubject>,
}

async fn bound_object(
    core: &Core,
    request: &Value,
    namespace: &str,
    account: &str,
) -> Result<Option<Bound>, ApiStatus> {
    let Some(reference) = object::at(request, &["spec", "boundObjectRef"]) else { return Ok(None) };
    let text = |name: &str| object::text(reference, &[name]);
    let (kind, resource, namespace) = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => ("pod", "pods", namespace),
        ("v1", "Secret") => ("secret", "secrets", namespace),
        ("v1", "Node") => ("node", "nodes", ""),
        (api_version, kind) => {
            let group = api_version.split_once('/').map_or("", |(group, _)| group);
            let text = format!("cannot bind token to object of type {group}/{api_version}, Kind={kind}");
            return Err(ApiStatus::bad_request(text));
        }
    };
    let group_resource = GroupResource { group: String::new(), resource: resource.to_owned() };
    let found = core.object("", resource, namespace, text("name")).await?;
    let (_, object) = found.ok_or_else(|| ApiStatus::not_found(&group_resource, text("name")))?;
    let uid = object::meta(&object, "uid");
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
             deleted and then recreated",
            text("uid")
        );
        return Err(ApiStatus::conflict(&group_resource, text("name"), &why));
    }
    let mut node = None;
    if kind == "pod" {
        if object::text(&object, &["spec", "serviceAccountName"]) != account {
            let text = format!(
                "cannot bind token for serviceaccount \"{account}\" to pod running with different serviceaccount name."
            );
            return Err(ApiStatus::bad_request(text));
        }
        node = node_of(core, object::text(&object, &["spec", "nodeName"])).await?;
    }
    let subject = TokenSubject { name: text("name").to_owned(), uid: uid.to_owned() };
    Ok(Some(Bound { kind, subject, node }))
}

async fn node_of(core: &Core, name: &str) -> Result<Option<TokenSubject>, ApiStatus> {
    if name.is_empty() {
        return Ok(None);
    }
    let node = core.object("", "nodes", "", name).await?;
    // The pod may name a node that has not registered yet; its uid is then unknown.
    let uid = node.map(|(_, node)| object::meta(&node, "uid").to_owned()).unwrap_or_default();
    Ok(Some(TokenSubject { name: name.to_owned(), uid }))
}
