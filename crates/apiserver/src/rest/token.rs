//! `serviceaccounts/token`: tokens that are bound to a pod, secret or node, and end by themselves.

use std::sync::Arc;

use http::StatusCode;
use kedge_auth::{TokenSubject, extend_claims, service_account_claims};
use kedge_meta::{ApiStatus, FieldError, FieldPath, GroupResource, GroupVersionKind, format_time};
use serde_json::{Value, json};

use crate::admission::{Attributes, Operation, Seen, Told};
use crate::call::Call;
use crate::core::{Core, new_uid};
use crate::object;
use crate::registry::Resource;
use crate::reply::{self, Reply};
use crate::write::{self, Expected, WriteOptions};

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// Who asks for so many seconds did not choose them: admission puts them into every pod.
const INJECTED_SECONDS: i64 = 3607;
/// How long such a token really lives: a year.
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// POST of a `TokenRequest`.
pub(super) async fn issue(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    if call.verb != "create" {
        return Err(ApiStatus::method_not_allowed());
    }
    let encoding = call.accepted_object()?;
    let options = WriteOptions::of(call)?;
    let expected = Expected::builtin(GROUP, "v1", KIND, "authentication.k8s.io/v1");
    let mut request = write::read_object(core, call, expected, options.validation).await?;
    let target = call.resource().clone();
    let record = core.record(resource, &target.namespace, &target.name).await?;
    let account = crate::core::decode(&record)?;
    let kind = GroupVersionKind::new(GROUP, "v1", KIND);
    let described = options.described(true);
    let told = Told { options: &described, dry_run: options.dry_run, notes: &call.notes, seen: Seen::As(&kind) };
    let attributes = Attributes::of(core, call, resource, Operation::Create, told);
    core.admission.admit(&attributes, &mut request).await?;
    place(&mut request, &account, &target.namespace, &target.name)?;
    let asked = check(&request)?;
    let mut audiences = texts(&request, &["spec", "audiences"]);
    if audiences.is_empty() {
        audiences = core.config.audiences();
    }
    core.admission.validate(&attributes, &request).await?;
    let bound = bound_object(core, &request, &target.namespace, &target.name).await?;
    let seconds = cap(core, call, asked);
    let subject = TokenSubject { name: target.name, uid: object::meta(&account, "uid").to_owned() };
    let id = new_uid();
    let credential = "authentication.kubernetes.io/issued-credential-id";
    call.notes.annotate(credential.to_owned(), format!("JTI={id}"));
    let mut claims = claims(core, &id, &audiences, &target.namespace, &subject, bound.as_ref(), call.now, seconds);
    if is_extended(core, seconds, &audiences, bound.as_ref()) {
        extend_claims(&mut claims, EXTENDED_SECONDS);
    }
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(seconds);
    object::set_meta(&mut request, "creationTimestamp", &format_time(call.now));
    // What is told stays what was asked for, so that whoever holds the token renews it in time.
    let expires = format_time(call.now + std::time::Duration::from_secs(seconds.unsigned_abs()));
    let token = if options.dry_run { String::new() } else { core.token_keys.load().issue(&claims) };
    request["status"] = json!({"token": token, "expirationTimestamp": expires});
    Ok(reply::document(StatusCode::CREATED, encoding, &request))
}

/// Refuses a request that names another account than its path does, and fills in what it leaves out.
fn place(request: &mut Value, account: &Value, namespace: &str, name: &str) -> Result<(), ApiStatus> {
    let given = object::name(request);
    if !given.is_empty() && given != name {
        let path = FieldPath::new("metadata").child("name");
        let error = FieldError::invalid(&path, &json!(given), "must match the service account name if specified");
        return Err(ApiStatus::invalid(GROUP, KIND, name, &[error]));
    }
    write::place_namespace(request, namespace)?;
    let (given, uid) = (object::meta(request, "uid"), object::meta(account, "uid"));
    if !given.is_empty() && given != uid {
        let why =
            format!("the UID in the token request ({given}) does not match the UID of the service account ({uid})");
        let about = GroupResource { group: GROUP.to_owned(), resource: KIND.to_owned() };
        return Err(ApiStatus::conflict(&about, name, &why));
    }
    object::set_meta(request, "name", name);
    object::set_meta(request, "uid", uid);
    Ok(())
}

/// The seconds that are asked for, or as many as there may be.
fn cap(core: &Core, call: &Call, seconds: i64) -> i64 {
    let longest = i64::try_from(core.config.service_account_max_token_expiration.as_secs()).unwrap_or(MAX_SECONDS);
    if longest == 0 || seconds <= longest {
        return seconds;
    }
    call.notes.warn(&format!("requested expiration of {seconds} seconds shortened to {longest} seconds"));
    longest
}

/// Whether a token is of those that admission put into a pod, for this API server alone.
fn is_extended(core: &Core, seconds: i64, audiences: &[String], bound: Option<&Bound>) -> bool {
    let own = core.config.audiences();
    core.config.service_account_extend_token_expiration
        && seconds == INJECTED_SECONDS
        && bound.is_some_and(|bound| bound.kind == "pod")
        && audiences.iter().all(|audience| own.contains(audience))
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
fn check(request: &Value) -> Result<i64, ApiStatus> {
    let seconds =
        object::at(request, &["spec", "expirationSeconds"]).and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS);
    let path = FieldPath::new("spec").child("expirationSeconds");
    let why = match seconds {
        ..MIN_SECONDS => "may not specify a duration less than 10 minutes",
        MIN_SECONDS..=MAX_SECONDS => return Ok(seconds),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let error = FieldError::invalid(&path, &json!(seconds), why);
    Err(ApiStatus::invalid(GROUP, KIND, "", &[error]))
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
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let (kind, resource, namespace) = match (group, text("kind")) {
        ("", "Pod") => ("pod", "pods", namespace),
        ("", "Secret") => ("secret", "secrets", namespace),
        ("", "Node") => ("node", "nodes", ""),
        (group, kind) => {
            let text = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
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
        // Upstream names the kind here.
        let about = GroupResource { group: String::new(), resource: text("kind").to_owned() };
        return Err(ApiStatus::conflict(&about, text("name"), &why));
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
