//! Groups that other parts of the process serve, behind the same authentication, authorization and discovery as all others.
//!
//! A group is mounted with facts for discovery and a service that answers. It stores nothing. Invariant: the service sees
//! only requests for resources and verbs that it announced, from users who may make them; its answers are JSON, and leave
//! in the encoding that the client asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, Uri};
use kedge_kinds::{Backing, Generic, Kind, StrategyRef};
use kedge_meta::ApiStatus;
use serde_json::{Value, json};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::body::Body;
use crate::call::Call;
use crate::core::Core;
use crate::negotiate::Encoding;
use crate::registry::{Registry, Resource};
use crate::reply::{self, Reply};

/// Answers requests for a group: the user is a `kedge_meta::UserInfo` among the extensions.
pub type LocalHandler = BoxCloneSyncService<Request<Bytes>, Response<Bytes>, Infallible>;

/// A resource of a local group.
#[derive(Debug, Clone)]
pub struct LocalResource {
    /// Plural name, such as `pods`.
    pub resource: &'static str,
    /// Singular name; may be empty.
    pub singular: &'static str,
    /// Kind, such as `PodMetrics`.
    pub kind: &'static str,
    /// Whether objects lie in namespaces.
    pub namespaced: bool,
    /// What may be done with it, sorted.
    pub verbs: &'static [&'static str],
}

/// A group in one version that another part of the process serves.
#[derive(Clone)]
pub struct LocalApi {
    /// The group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// Its place among groups, as in an APIService.
    pub group_priority_minimum: i32,
    /// Its place among versions, as in an APIService.
    pub version_priority: i32,
    /// Its resources.
    pub resources: Vec<LocalResource>,
    /// Objects that belong to it, such as roles; made where they are not there.
    pub objects: Vec<Value>,
    /// Who answers.
    pub handler: LocalHandler,
}

/// The handlers of local groups, by group and version.
#[derive(Default)]
pub(crate) struct LocalApis {
    handlers: ArcSwap<BTreeMap<(String, String), LocalHandler>>,
}

impl LocalApis {
    /// Who answers for a group in a version, if it is local.
    pub(crate) fn find(&self, group: &str, version: &str) -> Option<LocalHandler> {
        let handlers = self.handlers.load();
        if handlers.is_empty() {
            return None;
        }
        handlers.get(&(group.to_owned(), version.to_owned())).cloned()
    }

    /// Serves a group from now on.
    pub(crate) fn add(&self, api: &LocalApi) {
        let key = (api.group.to_owned(), api.version.to_owned());
        self.handlers.rcu(|handlers| {
            let mut handlers = BTreeMap::clone(handlers);
            handlers.insert(key.clone(), api.handler.clone());
            handlers
        });
    }
}

/// Announces the resources of a group.
pub(crate) fn announce(registry: &ArcSwap<Registry>, api: &LocalApi) {
    registry.rcu(|registry| {
        let mut registry = Registry::clone(registry);
        for resource in &api.resources {
            registry.add(kind(api, resource));
        }
        registry
    });
}

fn kind(api: &LocalApi, resource: &LocalResource) -> Kind {
    Kind {
        group: api.group.into(),
        version: api.version.into(),
        kind: resource.kind.into(),
        list_kind: Cow::Owned(format!("{}List", resource.kind)),
        resource: resource.resource.into(),
        singular: resource.singular.into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: resource.namespaced,
        verbs: resource.verbs.iter().map(|verb| Cow::Borrowed(*verb)).collect(),
        subresources: Vec::new(),
        storage_version_hash: "".into(),
        backing: Backing::Virtual,
        storage_api_version: Cow::Owned(format!("{}/{}", api.group, api.version)),
        storage_prefix: Cow::Owned(format!("/registry/{}/{}", api.group, resource.resource)),
        served_by_default: true,
        strategy: StrategyRef::Static(&Generic::PLAIN),
    }
}

/// The APIService that shows a local group, as upstream shows its own.
pub(crate) fn api_service(api: &LocalApi, now: jiff::Timestamp) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{}.{}", api.version, api.group)},
        "spec": {"group": api.group, "version": api.version,
            "groupPriorityMinimum": api.group_priority_minimum, "versionPriority": api.version_priority},
        "status": {"conditions": [{"type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available", "lastTransitionTime": kedge_meta::format_time(now)}]},
    })
}

/// Answers a request by a local group's handler.
pub(crate) async fn answer(core: &Arc<Core>, call: &mut Call, resource: &Resource, handler: LocalHandler) -> Reply {
    check(call, resource)?;
    let body = call.read_body(core.config.max_request_body_bytes).await?;
    let response = handler.oneshot(request(call, body)?).await.unwrap_or_else(|never| match never {});
    present(call, response)
}

/// 404 and 405 for what was not announced.
fn check(call: &Call, resource: &Resource) -> Result<(), ApiStatus> {
    let (kind, target) = (&resource.kind, call.resource());
    let misplaced = !kind.namespaced && !target.namespace.is_empty();
    let across = kind.namespaced && target.namespace.is_empty() && !target.name.is_empty() && call.verb != "list";
    if misplaced || across || !target.subresource.is_empty() {
        return Err(ApiStatus::no_such_path());
    }
    if kind.has_verb(call.verb) { Ok(()) } else { Err(ApiStatus::method_not_allowed()) }
}

fn request(call: &Call, body: Bytes) -> Result<Request<Bytes>, ApiStatus> {
    let uri = match call.raw_query.is_empty() {
        true => call.path.clone(),
        false => format!("{}?{}", call.path, call.raw_query),
    };
    let uri: Uri = uri.parse().map_err(|_| ApiStatus::no_such_path())?;
    let mut request = Request::new(body);
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = call.headers.clone();
    request.extensions_mut().insert(call.user.clone());
    Ok(request)
}

/// JSON in the encoding that was asked for; everything else as it is.
fn present(call: &Call, response: Response<Bytes>) -> Reply {
    let encoding = call.accepted().map_or(Encoding::Json { pretty: false }, |accepted| accepted.encoding);
    let is_json = response.headers().get(http::header::CONTENT_TYPE) == Some(&reply::JSON);
    let plain = encoding == Encoding::Json { pretty: false };
    if plain || !is_json {
        return Ok(response.map(Body::full));
    }
    match serde_json::from_slice::<Value>(response.body()) {
        Ok(document) => Ok(reply::document(response.status(), encoding, &document)),
        Err(error) => Err(ApiStatus::internal(format!("a local API answered with what is no JSON: {error}"))),
    }
}
