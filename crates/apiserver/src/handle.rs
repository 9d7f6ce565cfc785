//! The way of a request: authenticate, limit, authorize, route, answer.
//!
//! Invariant: every request gets an answer; a handler that panics answers 500 and harms nobody else.

use std::net::{IpAddr, Ipv6Addr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use kedge_kinds::{Deprecation, deprecation};
use kedge_meta::{ApiStatus, UserInfo};
use parking_lot::Mutex;

use crate::body::{Body, BoxError};
use crate::call::{self, Call};
use crate::core::Core;
use crate::front_proxy::Caller;
use crate::metrics::{Finished, Labels, Running};
use crate::negotiate::{self, Encoding};
use crate::query::Query;
use crate::registry::Resource;
use crate::reply::{self, Reply};
use crate::target::{ResourceTarget, Target, verb};
use crate::{
    aggregation, audit, authenticate, compress, create, delete, documents, flow, local, patch, read, rest, update,
    watch, write,
};

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    /// A connection, with what its client certificate says, and where it comes from.
    Connection(Caller, IpAddr),
    /// A component in the same process.
    Local(Arc<UserInfo>),
}

impl Peer {
    /// Where requests come from.
    pub(crate) fn address(&self) -> IpAddr {
        match self {
            Self::Connection(_, address) => *address,
            Self::Local(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        }
    }
}

/// Answers a request.
pub(crate) async fn handle<B>(core: Arc<Core>, request: Request<B>, peer: Peer) -> Response<Body>
where
    B: http_body::Body + Send + 'static,
    B::Data: bytes::Buf,
    B::Error: Into<BoxError>,
{
    let started = Instant::now();
    let mut call = read_request(&core, request);
    fill_name(&mut call);
    let labels = Labels::of(&core, &call);
    let long_running = is_long_running(&call);
    call.running = long_running.then(|| Arc::new(Running::new(&core, labels.clone())));
    let deprecation = deprecation_of(&core, &call);
    let answered = AssertUnwindSafe(answer(&core, &mut call, &peer, long_running)).catch_unwind().await;
    let has_panicked = answered.is_err();
    let answered = answered.unwrap_or_else(|_| {
        tracing::error!(path = %call.path, verb = call.verb, "a request handler panicked");
        Err(ApiStatus::internal("this request caused apiserver to panic. Look in the logs for details"))
    });
    let (mut response, error) = match answered {
        Ok(response) => (response, None),
        Err(status) => (reply::error(&status, error_encoding(&call)), Some(status)),
    };
    // Who is not let in has not used it.
    let deprecation = deprecation.filter(|_| !is_turned_away(response.status()));
    if let Some(deprecation) = &deprecation {
        core.metrics.deprecated(&labels, &deprecation.removed_release);
        call.warnings.insert(0, deprecation.warning.clone());
    }
    audit::tell(&mut response, call.audit_id.clone());
    if let Some(running) = call.running.take() {
        response.body_mut().keep(Box::new(running));
    }
    if let Some(recorder) = call.recorder.take() {
        let is_long_running = long_running || response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let (error, deprecation) = (error.as_ref(), deprecation.as_ref());
        let outcome = audit::Outcome { error, has_panicked, is_long_running, deprecation };
        recorder.answered(&mut response, outcome).await;
    }
    call.warnings.extend(call.notes.take_warnings());
    write::add_warnings(&mut response, &call.warnings);
    // What one user may see is not for caches that others share.
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    if let Some(classified) = call.classified.take() {
        classified.show(&mut response);
    }
    let mut response = compress::compress(response, &call.headers, long_running);
    // A large answer takes its time to leave, and is not over before.
    if let Some(place) = call.place.take()
        && response.body().is_large()
    {
        response.body_mut().keep(flow::hold(place, core.config.request_timeout));
    }
    let finished = Finished {
        code: response.status().as_u16(),
        duration: (!long_running).then(|| started.elapsed()),
        elsewhere: call.notes.elsewhere(),
        bytes: response.body().length(),
    };
    core.metrics.finished(labels, finished);
    response
}

/// What a request asks for, before anybody knows who asks.
fn read_request<B>(core: &Core, request: Request<B>) -> Call
where
    B: http_body::Body + Send + 'static,
    B::Data: bytes::Buf,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let audit_id = audit::id(&parts.headers);
    let target = Target::of(parts.uri.path());
    let raw_query = parts.uri.query().unwrap_or("").to_owned();
    let query = Query::parse(&raw_query);
    let verb = match &target {
        Target::Resource(target) => verb(&parts.method, target, &query),
        Target::Other => method_verb(&parts.method),
    };
    Call {
        path: parts.uri.path().to_owned(),
        method: parts.method,
        raw_query,
        query,
        headers: parts.headers,
        extensions: parts.extensions,
        user: UserInfo::default(),
        target,
        verb,
        now: core.clock.now(),
        warnings: Vec::new(),
        notes: Arc::default(),
        audit_id,
        recorder: None,
        running: None,
        classified: None,
        place: None,
        payload: Mutex::new(call::payload(body)),
    }
}

/// A selector on the name makes a collection request one about that object, for authorization too.
fn fill_name(call: &mut Call) {
    if !matches!(call.verb, "list" | "watch" | "deletecollection") {
        return;
    }
    let fields = call.query.get("fieldSelector").and_then(|text| kedge_meta::FieldSelector::parse(text).ok());
    if let (Target::Resource(target), Some(name)) =
        (&mut call.target, fields.as_ref().and_then(|f| f.exact("metadata.name")))
        && target.name.is_empty()
    {
        target.name = name.to_owned();
    }
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

fn error_encoding(call: &Call) -> Encoding {
    negotiate::accepted(&call.headers, &call.query)
        .map_or(Encoding::Json { pretty: false }, |accepted| accepted.encoding)
}

fn is_long_running(call: &Call) -> bool {
    match &call.target {
        Target::Resource(target) => {
            call.verb == "watch"
                || matches!(target.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
        }
        Target::Other => false,
    }
}

async fn answer(core: &Arc<Core>, call: &mut Call, peer: &Peer, long_running: bool) -> Reply {
    identify(core, call, peer).await?;
    if !long_running || call.verb == "watch" {
        match core.flow.enter(core, call).await {
            Ok(place) => call.place = Some(place),
            Err(refusal) => {
                core.metrics.alerts.terminated(&Labels::of(core, call), refusal.status().as_u16());
                return Ok(refusal);
            }
        }
    }
    core.access.check(call, &core.metrics.attempts).await?;
    let answer = route(core, call);
    if long_running {
        return answer.await;
    }
    match tokio::time::timeout(core.config.request_timeout, answer).await {
        Ok(reply) => reply,
        Err(_) => {
            core.metrics.alerts.terminated(&Labels::of(core, call), StatusCode::GATEWAY_TIMEOUT.as_u16());
            Err(timed_out(core))
        }
    }
}

/// Finds out who asks, and on whose behalf; from then on the request is recorded.
async fn identify(core: &Core, call: &mut Call, peer: &Peer) -> Result<(), ApiStatus> {
    let Peer::Connection(caller, _) = peer else {
        if let Peer::Local(user) = peer {
            call.user = UserInfo::clone(user);
        }
        return audit::begin(core, call, peer).await;
    };
    match authenticate::authenticate(core, &call.headers, caller, &call.notes).await {
        Ok(user) => {
            core.metrics.attempts.authenticated(None);
            call.user = user;
        }
        Err(refusal) => {
            core.metrics.attempts.authenticated(Some(refusal.code));
            audit::refused(core, call, peer, &refusal).await;
            return Err(refusal);
        }
    }
    audit::begin(core, call, peer).await?;
    if let Some(user) = authenticate::impersonate(core, &call.headers, &call.user).await? {
        if let Some(recorder) = &call.recorder {
            recorder.impersonated(&user);
        }
        call.user = user;
    }
    Ok(())
}

fn timed_out(core: &Core) -> ApiStatus {
    let seconds = core.config.request_timeout.as_secs();
    let text = format!("request did not complete within the allowed duration of {seconds} seconds");
    ApiStatus::new(504, kedge_meta::StatusReason::Timeout, format!("Timeout: {text}"))
}

async fn route(core: &Arc<Core>, call: &mut Call) -> Reply {
    if let Some(extension) = core.extensions.of_path(&call.path) {
        return aggregation::answer(core, call, &extension).await;
    }
    let Target::Resource(target) = &call.target else { return documents::answer(core, call).await };
    let registry = core.registry.load();
    let Some(resource) = registry.find(&target.group, &target.version, &target.resource) else {
        return documents::answer(core, call).await;
    };
    let resource = Arc::clone(resource);
    drop(registry);
    if let Target::Resource(target) = &mut call.target {
        // A namespace's path names it twice; its key does not.
        if resource.is("", "namespaces") {
            target.namespace.clear();
        }
    }
    let target = call.resource();
    if let Some(handler) = core.local.find(&target.group, &target.version) {
        return local::answer(core, call, &resource, handler).await;
    }
    if let Some(handler) = rest::handler(&resource, target) {
        return handler(core, call, &resource).await;
    }
    check_served(&resource, target, call.verb)?;
    match call.verb {
        "get" => read::get(core, call, &resource).await,
        "list" => read::list(core, call, &resource).await,
        "watch" => watch::watch(core, call, &resource).await,
        "create" => create::create(core, call, &resource).await,
        "update" => update::update(core, call, &resource).await,
        "patch" => patch::patch(core, call, &resource).await,
        "delete" => delete::delete(core, call, &resource).await,
        "deletecollection" => delete::delete_collection(core, call, &resource).await,
        _ => Err(ApiStatus::method_not_allowed()),
    }
}

/// 404 and 405 for what the registry does not know of a resource.
fn check_served(resource: &Resource, target: &ResourceTarget, verb: &str) -> Result<(), ApiStatus> {
    let kind = &resource.kind;
    let across = kind.namespaced && target.namespace.is_empty();
    let misplaced = !kind.namespaced && !target.namespace.is_empty();
    if misplaced || (across && !target.name.is_empty() && !matches!(verb, "list" | "watch")) || !target.rest.is_empty()
    {
        return Err(ApiStatus::no_such_path());
    }
    let served = match target.subresource.is_empty() {
        true => {
            let nameless = target.name.is_empty() && matches!(verb, "update" | "patch");
            kind.has_verb(verb) && !nameless && !(across && matches!(verb, "create" | "deletecollection"))
        }
        false => {
            let subresource = kind.subresource(&target.subresource).ok_or_else(ApiStatus::no_such_path)?;
            subresource.verbs.iter().any(|own| own == verb)
        }
    };
    if served && resource.is_stored() { Ok(()) } else { Err(ApiStatus::method_not_allowed()) }
}

/// What is known of the resource of a call, where it is deprecated.
fn deprecation_of(core: &Core, call: &Call) -> Option<Deprecation> {
    let Target::Resource(target) = &call.target else { return None };
    let registry = core.registry.load();
    let resource = registry.find(&target.group, &target.version, &target.resource)?;
    if let Some(version) = resource.version() {
        let warning = version.deprecation()?.to_owned();
        return Some(Deprecation { warning, removed_release: String::new() });
    }
    deprecation(&resource.kind.group, &resource.kind.version, &resource.kind.kind)
}

fn is_turned_away(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
