//! What is particular to single resources: reviews that are answered and not stored, and subresources that are more than
//! a part of the object.
//!
//! A table from resource and subresource to a handler; everything that is not in it takes the generic path.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::call::Call;
use crate::core::Core;
use crate::registry::Resource;
use crate::reply::Reply;
use crate::target::ResourceTarget;

mod binding;
mod component_status;
mod connect;
mod eviction;
mod kubelet;
mod links;
mod logs;
mod proxy;
mod reviews;
mod scale;
mod selectors;
mod streams;
mod token;
mod unverified;

pub(crate) use kubelet::{Endpoint, Stream, dial_plain};
pub(crate) use streams::{client_request, spawn};
pub(crate) use unverified::anybody;

/// Answers a request on its own.
pub(crate) type Handler = for<'a> fn(&'a Arc<Core>, &'a mut Call, &'a Arc<Resource>) -> BoxFuture<'a, Reply>;

/// Group, resource, subresource and who answers.
const HANDLERS: &[(&str, &str, &str, Handler)] = &[
    ("", "bindings", "", |core, call, resource| Box::pin(binding::bind(core, call, resource))),
    ("", "componentstatuses", "", |core, call, resource| Box::pin(component_status::answer(core, call, resource))),
    ("", "nodes", "proxy", |core, call, resource| Box::pin(proxy::node(core, call, resource))),
    ("", "pods", "attach", |core, call, _| Box::pin(streams::attach(core, call))),
    ("", "pods", "binding", |core, call, resource| Box::pin(binding::bind(core, call, resource))),
    ("", "pods", "eviction", |core, call, resource| Box::pin(eviction::evict(core, call, resource))),
    ("", "pods", "exec", |core, call, _| Box::pin(streams::exec(core, call))),
    ("", "pods", "log", |core, call, _| Box::pin(logs::logs(core, call))),
    ("", "pods", "portforward", |core, call, _| Box::pin(streams::port_forward(core, call))),
    ("", "pods", "proxy", |core, call, resource| Box::pin(proxy::pod(core, call, resource))),
    ("", "serviceaccounts", "token", |core, call, resource| Box::pin(token::issue(core, call, resource))),
    ("", "services", "proxy", |core, call, resource| Box::pin(proxy::service(core, call, resource))),
    ("authentication.k8s.io", "selfsubjectreviews", "", |core, call, resource| {
        Box::pin(reviews::self_subject(core, call, resource))
    }),
    ("authentication.k8s.io", "tokenreviews", "", |core, call, resource| {
        Box::pin(reviews::token(core, call, resource))
    }),
    ("authorization.k8s.io", "localsubjectaccessreviews", "", |core, call, resource| {
        Box::pin(reviews::subject_access(core, call, resource))
    }),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "", |core, call, resource| {
        Box::pin(reviews::self_access(core, call, resource))
    }),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "", |core, call, resource| {
        Box::pin(reviews::self_rules(core, call, resource))
    }),
    ("authorization.k8s.io", "subjectaccessreviews", "", |core, call, resource| {
        Box::pin(reviews::subject_access(core, call, resource))
    }),
];

/// The handler of a path that does not take the generic way.
pub(crate) fn handler(resource: &Resource, target: &ResourceTarget) -> Option<Handler> {
    // Every kind that can be scaled is scaled in the same way.
    if target.subresource == "scale" && resource.kind.strategy.scale().is_some() {
        return Some(|core, call, resource| Box::pin(scale::answer(core, call, resource)));
    }
    let found = HANDLERS.iter().find(|(group, name, sub, _)| resource.is(group, name) && *sub == target.subresource);
    found.map(|(_, _, _, handler)| *handler)
}
