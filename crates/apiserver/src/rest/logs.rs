//! `pods/log`: a container's log, as the kubelet hands it out.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use kedge_meta::{ApiStatus, FieldError, FieldPath, StatusReason};
use serde_json::json;

use super::kubelet;
use super::streams::{client_request, spawn};
use crate::body::Body;
use crate::call::{Call, Payload};
use crate::core::Core;
use crate::object;
use crate::reply::{self, Reply};

/// Options that go on to the kubelet as they are.
const OPTIONS: [&str; 8] =
    ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"];

/// GET of a log.
pub(super) async fn logs(core: &Arc<Core>, call: &mut Call) -> Reply {
    if call.verb != "get" {
        return Err(ApiStatus::method_not_allowed());
    }
    let target = call.resource();
    check(call, &target.name)?;
    let pod = kubelet::pod(core, &target.namespace, &target.name).await?;
    let container = kubelet::container(&pod, call.query.get("container").unwrap_or(""))?;
    let node = object::text(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        // Nothing runs yet, so there is nothing to read.
        return Ok(reply::plain(""));
    }
    let endpoint = kubelet::endpoint(core, node).await?;
    let options: Vec<String> = OPTIONS
        .iter()
        .filter_map(|name| call.query.non_empty(name).map(|value| format!("{name}={}", encode(value))))
        .collect();
    let path = format!("/containerLogs/{}/{}/{container}?{}", target.namespace, target.name, options.join("&"));
    let request = Request::builder().uri(path.trim_end_matches('?')).header(HOST, endpoint.authority());
    let request = request.body(Payload::default()).map_err(ApiStatus::internal)?;
    let tls = core.kubelet_tls.clone();
    let stream = kubelet::dial(tls, &endpoint).await.map_err(|error| unreachable_kubelet(&endpoint, &path, &error))?;
    let response = kubelet::exchange(core, stream, request)
        .await
        .map_err(|error| unreachable_kubelet(&endpoint, &path, &error))?;
    if response.status() != StatusCode::OK {
        return Err(refused(response).await);
    }
    let mut response = response;
    if kedge_streaming::is_websocket_request(&call.headers) {
        let request = client_request(call);
        return Ok(spawn(kedge_streaming::stream_to_websocket(request, response.into_body()), call.kept()));
    }
    response.headers_mut().clear();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// What `kubectl logs` prints when the node is away.
fn unreachable_kubelet(endpoint: &kubelet::Endpoint, path: &str, error: &dyn std::fmt::Display) -> ApiStatus {
    let text = format!("Get \"https://{}{path}\": {error}", endpoint.authority());
    ApiStatus::new(500, StatusReason::InternalError, text)
}

/// The kubelet's refusal, in upstream's words.
async fn refused(response: http::Response<Body>) -> ApiStatus {
    let code = response.status();
    let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&body[..body.len().min(2048)]).trim().to_owned();
    match code {
        StatusCode::NOT_FOUND => {
            let mut status =
                ApiStatus::new(404, StatusReason::NotFound, "the server could not find the requested resource");
            status.message = format!("{} ({text})", status.message);
            status
        }
        StatusCode::BAD_REQUEST => ApiStatus::bad_request(text),
        _ => ApiStatus::new(code.as_u16(), StatusReason::InternalError, text),
    }
}

fn check(call: &Call, name: &str) -> Result<(), ApiStatus> {
    let mut errors = Vec::new();
    let (seconds, time) = (call.query.integer("sinceSeconds")?, call.query.non_empty("sinceTime"));
    if seconds.is_some() && time.is_some() {
        let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::forbidden(&FieldPath::default(), why));
    }
    for (option, least, why) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        if let Some(value) = call.query.integer(option)?.filter(|value| *value < least) {
            errors.push(FieldError::invalid(&FieldPath::new(option), &json!(value), why));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiStatus::invalid("", "PodLogOptions", name, &errors)) }
}

/// Percent-encodes a query value.
pub(super) fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}
