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

/// Answers a request on its own.
pub(crate) type Handler = for<'a> fn(&'a Arc<Core>, &'a mut Call, &'a Arc<Resource>) -> BoxFuture<'a, Reply>;

/// Group, resource, subresource and who answers.
const HANDLERS: &[(&str, &str, &str, Handler)] = &[];

/// The handler of a path that does not take the generic way.
pub(crate) fn handler(resource: &Resource, target: &ResourceTarget) -> Option<Handler> {
    let found = HANDLERS.iter().find(|(group, name, sub, _)| resource.is(group, name) && *sub == target.subresource);
    found.map(|(_, _, _, handler)| *handler)
}
