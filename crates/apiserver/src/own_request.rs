//! Requests of the server to itself, as `system:apiserver`: they pass everything that requests pass.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use kedge_meta::UserInfo;
use serde_json::Value;

use crate::core::Core;
use crate::handle::{Peer, handle};

/// Sends an object and says what became of it.
pub(crate) async fn send(
    core: &Arc<Core>,
    method: Method,
    path: &str,
    content_type: &'static str,
    object: &Value,
) -> StatusCode {
    let Ok(uri) = path.parse() else { return StatusCode::BAD_REQUEST };
    let mut request = Request::new(Full::new(Bytes::from(object.to_string())));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let user = Arc::new(UserInfo::authenticated("system:apiserver", ["system:masters"]));
    handle(Arc::clone(core), request, Peer::Local(user)).await.status()
}
