//! Who makes a request: client certificate, bearer token, or nobody; and impersonation.
//!
//! A service-account token is good only while what it is bound to exists. Invariant: a credential that is presented and
//! refused is 401, never anonymous.

use std::collections::{BTreeMap, HashMap};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use kedge_auth::{Attributes, ResourceAttributes, TokenClaims, TokenSubject};
use kedge_meta::{ApiStatus, GroupResource, UserInfo, parse_time};
use kedge_store::Key;
use parking_lot::Mutex;

use crate::admission::Notes;
use crate::core::Core;
use crate::front_proxy::Caller;
use crate::metrics::Token;
use crate::query::decode;
use crate::reply::store_error;
use crate::scan;

mod bootstrap_token;
mod legacy_token;

/// How long after their deletion things that still are there make tokens good.
const DELETED_SECONDS: i64 = 60;

/// How many verified tokens are remembered.
const REMEMBERED: usize = 4096;

/// Tokens whose signature has been checked; what they are bound to is checked every time.
#[derive(Default)]
pub(crate) struct VerifiedTokens(Mutex<HashMap<[u8; 32], TokenClaims>>);

impl VerifiedTokens {
    /// Forgets them all: the keys have changed.
    pub(crate) fn forget(&self) {
        self.0.lock().clear();
    }
}

/// The user of a request, before impersonation; `notes` is told what the request should be warned of.
pub(crate) async fn authenticate(
    core: &Core,
    headers: &HeaderMap,
    caller: &Caller,
    notes: &Notes,
) -> Result<UserInfo, ApiStatus> {
    let by_header = match (caller, &core.front_proxy) {
        (Caller::FrontProxy, Some(proxy)) => proxy.user(headers),
        _ => None,
    };
    if let (None, Some(end)) = (&by_header, caller.end()) {
        core.metrics.alerts.came_with_certificate(end - core.clock.now().as_second());
    }
    let certificate = by_header.as_ref().or(caller.user());
    let user = match (bearer(headers), certificate) {
        (_, Some(user)) => user.clone(),
        (Some(token), None) => {
            let audiences = core.config.audiences();
            let found = token_user(core, &token, &audiences, notes).await?;
            found.map(|(user, _)| user).ok_or_else(ApiStatus::unauthorized)?
        }
        (None, None) if core.config.anonymous_auth => UserInfo::anonymous(),
        (None, None) => return Err(ApiStatus::unauthorized()),
    };
    Ok(user)
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) {
        let (scheme, token) = value.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    // Browsers can't set headers on WebSockets; the token comes as a subprotocol.
    let protocols = headers.get("sec-websocket-protocol")?.to_str().ok()?;
    let encoded = protocols.split(',').find_map(|p| p.trim().strip_prefix("base64url.bearer.authorization.k8s.io."))?;
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, encoded).ok()?;
    String::from_utf8(bytes).ok()
}

/// The user of a token, and for which of `audiences` it is; `None` where it is not good (any more).
pub(crate) async fn token_user(
    core: &Core,
    token: &str,
    audiences: &[String],
    notes: &Notes,
) -> Result<Option<(UserInfo, Vec<String>)>, ApiStatus> {
    if core.config.enable_bootstrap_token_auth
        && let Some(user) = bootstrap_token::user(core, token).await?
    {
        return Ok(Some((user, audiences.to_vec())));
    }
    if kedge_auth::is_legacy_token(token) {
        return legacy_token::user(core, token, audiences, notes).await;
    }
    let Some(claims) = verified(core, token, audiences) else { return Ok(None) };
    if !is_bound_to_what_exists(core, &claims).await? {
        return Ok(None);
    }
    note_age(core, &claims, notes);
    Ok(Some((claims.user(), claims.audiences)))
}

/// Tokens that live longer than their pods believe are counted, and told to the audit log once they should have been renewed.
fn note_age(core: &Core, claims: &TokenClaims, notes: &Notes) {
    let Some(warn_after) = claims.warn_after else { return };
    let over = core.clock.now().as_second() - warn_after.as_second();
    if over <= 0 {
        return core.metrics.tokens.used(Token::Valid);
    }
    core.metrics.tokens.used(Token::Stale);
    let subject = claims.user().username;
    let text = format!("subject: {subject}, seconds after warning threshold: {over}");
    notes.annotate("authentication.k8s.io/stale-token".to_owned(), text);
}

fn verified(core: &Core, token: &str, audiences: &[String]) -> Option<TokenClaims> {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    for part in audiences.iter().map(String::as_str).chain([token]) {
        digest.update(part.as_bytes());
        digest.update(b"\0");
    }
    let digest: [u8; 32] = digest.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
    let now = core.clock.now();
    if let Some(claims) = core.verified_tokens.0.lock().get(&digest).filter(|claims| claims.expires > now) {
        return Some(claims.clone());
    }
    let claims = core.token_keys.load().verify(token, &core.config.service_account_issuer, audiences, now);
    let claims = claims.inspect_err(|error| tracing::debug!(%error, "a bearer token is refused")).ok()?;
    let mut remembered = core.verified_tokens.0.lock();
    if remembered.len() >= REMEMBERED {
        remembered.clear();
    }
    remembered.insert(digest, claims.clone());
    Some(claims)
}

async fn is_bound_to_what_exists(core: &Core, claims: &TokenClaims) -> Result<bool, ApiStatus> {
    let namespace = claims.namespace.as_str();
    let bound = [
        ("serviceaccounts", namespace, Some(&claims.service_account)),
        ("pods", namespace, claims.pod.as_ref()),
        ("secrets", namespace, claims.secret.as_ref()),
        // The node of a pod's token is a fact about the pod; a token of its own is bound to the node.
        ("nodes", "", claims.node.as_ref().filter(|_| claims.pod.is_none())),
    ];
    for (resource, namespace, subject) in bound {
        if let Some(subject) = subject
            && !exists(core, resource, namespace, subject).await?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn exists(core: &Core, resource: &str, namespace: &str, subject: &TokenSubject) -> Result<bool, ApiStatus> {
    let slash = if namespace.is_empty() { "" } else { "/" };
    let key = Key::new(format!("/registry/{resource}/{namespace}{slash}{}", subject.name));
    let record = core.store.get(&key).await.map_err(store_error)?;
    Ok(record.is_some_and(|record| {
        // The mark of a deletion does not end them at once: what is deleted may have to say goodbye.
        let deleted = parse_time(&scan::text(&record.value, &["metadata", "deletionTimestamp"]));
        let is_over = deleted.is_some_and(|at| core.clock.now().as_second() - at.as_second() > DELETED_SECONDS);
        !is_over && scan::text(&record.value, &["metadata", "uid"]) == subject.uid
    }))
}

/// Takes the same time wherever the difference is.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// The user that `user` wants to act as, if it may; `None` where it acts for itself.
pub(crate) async fn impersonate(
    core: &Core,
    headers: &HeaderMap,
    user: &UserInfo,
) -> Result<Option<UserInfo>, ApiStatus> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let groups: Vec<String> =
        headers.get_all("impersonate-group").iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
    let extra = impersonated_extra(headers);
    let (name, uid) = (text("impersonate-user"), text("impersonate-uid"));
    if name.is_empty() {
        if groups.is_empty() && extra.is_empty() && uid.is_empty() {
            return Ok(None);
        }
        return Err(ApiStatus::bad_request("requested impersonation without impersonating a user"));
    }
    let mut wanted = vec![subject("users", "", "", name)];
    let mut result = UserInfo { username: name.to_owned(), uid: uid.to_owned(), groups: groups.clone(), extra };
    if let Some((namespace, account)) =
        name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
    {
        wanted = vec![subject("serviceaccounts", "", namespace, account)];
        if groups.is_empty() {
            result.groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        }
    }
    wanted.extend(groups.iter().map(|group| subject("groups", "", "", group)));
    if !uid.is_empty() {
        wanted.push(Subject { group: "authentication.k8s.io", ..subject("uids", "", "", uid) });
    }
    for (key, values) in &result.extra {
        let of_key =
            |value: &String| Subject { group: "authentication.k8s.io", ..subject("userextras", key, "", value) };
        wanted.extend(values.iter().map(of_key));
    }
    for subject in &wanted {
        subject.check(core, user).await?;
    }
    add_authenticated(&mut result);
    Ok(Some(result))
}

fn impersonated_extra(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix("impersonate-extra-"), value.to_str()) {
            extra.entry(decode(key, false)).or_default().push(value.to_owned());
        }
    }
    extra
}

fn add_authenticated(user: &mut UserInfo) {
    let group = match user.username == "system:anonymous" {
        true => "system:unauthenticated",
        false => "system:authenticated",
    };
    let known = ["system:unauthenticated", "system:authenticated"];
    if !user.groups.iter().any(|own| known.contains(&own.as_str())) {
        user.groups.push(group.to_owned());
    }
}

/// Something that may be impersonated, as authorization names it.
struct Subject {
    group: &'static str,
    resource: &'static str,
    subresource: String,
    namespace: String,
    name: String,
}

fn subject(resource: &'static str, subresource: &str, namespace: &str, name: &str) -> Subject {
    let owned = str::to_owned;
    Subject { group: "", resource, subresource: owned(subresource), namespace: owned(namespace), name: owned(name) }
}

impl Subject {
    async fn check(&self, core: &Core, user: &UserInfo) -> Result<(), ApiStatus> {
        let resource = ResourceAttributes {
            group: self.group,
            version: "v1",
            resource: self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            ..ResourceAttributes::default()
        };
        let attributes = Attributes { user, verb: "impersonate", resource: Some(resource), path: "" };
        if core.access.decide(&attributes).await?.is_allowed() {
            return Ok(());
        }
        let resource = GroupResource { group: self.group.to_owned(), resource: self.resource.to_owned() };
        Err(ApiStatus::forbidden(&resource, &self.name, &attributes.denial_text()))
    }
}
