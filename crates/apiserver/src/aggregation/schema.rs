//! The OpenAPI v2 schema of an API that another server has: fetched where it is not the one that is known.

use std::sync::Arc;

use http::header::{ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};
use kedge_schema::ForeignSchema;

use super::{Extension, check};
use crate::core::Core;
use crate::rest::Endpoint;

/// What a server gave.
#[derive(Debug)]
pub(super) struct Fetched {
    tag: Option<HeaderValue>,
    /// Absent where it says nothing of its API.
    pub(super) schema: Option<Arc<ForeignSchema>>,
}

/// What a server gives now; what it gave before where it does not say, and nothing where it has none.
pub(super) async fn fetch(
    core: &Core,
    extension: &Extension,
    endpoint: &Endpoint,
    known: Option<Arc<Fetched>>,
) -> Option<Arc<Fetched>> {
    let tag = known.as_ref().and_then(|known| known.tag.clone());
    let headers: HeaderMap = tag.map(|tag| (IF_NONE_MATCH, tag)).into_iter().collect();
    match check::ask(core, extension, endpoint, "/openapi/v2", headers).await {
        Err(_) | Ok((304, ..)) => known,
        Ok((200, headers, body)) => {
            let document = serde_json::from_slice(&body).ok()?;
            let schema = ForeignSchema::of_group_version(document, &extension.group, &extension.version);
            Some(Arc::new(Fetched { tag: headers.get(ETAG).cloned(), schema: schema.map(Arc::new) }))
        }
        Ok(_) => None,
    }
}
