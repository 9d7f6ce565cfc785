//! Requests of the server to itself, as `system:apiserver`: they pass everything that requests pass.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use kedge_meta::UserInfo;
use serde_json::{Value, json};

use crate::core::{Core, random_suffix};
use crate::handle::{Peer, handle};
use crate::object;

/// Reason, action and text of an event.
pub(crate) type Finding = (&'static str, &'static str, String);

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

/// Writes an event of type Warning about an object of an API version and kind.
pub(crate) async fn warn(
    core: &Arc<Core>,
    source: &str,
    (api_version, kind): (&str, &str),
    about: &Value,
    (reason, action, text): Finding,
) {
    let key = object::key(about);
    let namespace = if key.namespace.is_empty() { "default" } else { &key.namespace };
    let now = core.clock.now();
    // Several about one object may be told in the same moment.
    let name = format!("{}.{:x}{}", key.name.replace(':', "-"), now.as_nanosecond(), random_suffix(5));
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": name, "namespace": namespace}, "eventTime": kedge_meta::format_micro_time(now),
        "reportingController": source, "reportingInstance": source, "type": "Warning",
        "reason": reason, "action": action, "note": text,
        "regarding": {"apiVersion": api_version, "kind": kind, "namespace": key.namespace, "name": key.name,
            "uid": object::meta(about, "uid"), "resourceVersion": object::meta(about, "resourceVersion")}});
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let status = send(core, Method::POST, &path, "application/json", &event).await;
    if !status.is_success() {
        tracing::debug!(%status, reason, "an event could not be written");
    }
}
