//! Answers: bytes with a content type, and errors as `Status` objects.
//!
//! The one place that turns the errors of the layers below into what clients see.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use kedge_meta::{ApiStatus, StatusReason};
use kedge_store::StoreError;
use serde_json::Value;

use crate::body::Body;
use crate::negotiate::Encoding;

/// What a handler gives back.
pub(crate) type Reply = Result<Response<Body>, ApiStatus>;

pub(crate) const PROTOBUF: HeaderValue = HeaderValue::from_static(kedge_schema::PROTOBUF);
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer with these bytes.
pub(crate) fn bytes(code: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Body> {
    respond(code, content_type, Body::full(body))
}

/// An answer with this body.
pub(crate) fn respond(code: StatusCode, content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// 200 with plain text.
pub(crate) fn plain(text: impl Into<String>) -> Response<Body> {
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    bytes(StatusCode::OK, content_type, text.into())
}

/// An answer with a JSON document in the encoding that was asked for.
pub(crate) fn document(code: StatusCode, encoding: Encoding, document: &Value) -> Response<Body> {
    let (content_type, text) = encode(encoding, document);
    bytes(code, content_type, text)
}

/// A document as bytes.
pub(crate) fn encode(encoding: Encoding, document: &Value) -> (HeaderValue, Bytes) {
    match encoding {
        Encoding::Json { pretty: false } => (JSON, to_bytes(serde_json::to_vec(document))),
        Encoding::Json { pretty: true } => {
            let mut text = serde_json::to_vec_pretty(document).unwrap_or_default();
            text.push(b'\n');
            (JSON, Bytes::from(text))
        }
        // What has no protobuf form (discovery, for one) goes out as JSON and says so.
        Encoding::Protobuf => match kedge_schema::encode_protobuf(document) {
            Ok(text) => (PROTOBUF, text.into()),
            Err(_) => encode(Encoding::Json { pretty: false }, document),
        },
        Encoding::Yaml => {
            let text = serde_yaml::to_string(document).map(String::into_bytes).unwrap_or_default();
            (HeaderValue::from_static("application/yaml"), Bytes::from(text))
        }
    }
}

fn to_bytes(text: serde_json::Result<Vec<u8>>) -> Bytes {
    text.expect("JSON values can always be written").into()
}

/// The answer that an error is.
pub(crate) fn error(status: &ApiStatus, encoding: Encoding) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = document(code, encoding, &status.to_json());
    if let Some(seconds) = status.details.as_ref().and_then(|details| details.retry_after_seconds) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// What a client sees of an error of the store.
pub(crate) fn store_error(error: StoreError) -> ApiStatus {
    match error {
        StoreError::Compacted { requested, oldest } => {
            ApiStatus::expired(format!("too old resource version: {requested} ({oldest})"))
        }
        StoreError::Future { requested, current } => too_large_revision(requested.0, current.0),
        StoreError::Closed => unavailable("the server is shutting down"),
        StoreError::Unavailable(_) => unavailable(&error.to_string()),
        StoreError::Timeout(_) => ApiStatus::new(504, StatusReason::Timeout, format!("Timeout: {error}")),
        StoreError::Storage(ref text) => {
            tracing::error!(error = %text, "the store failed");
            ApiStatus::internal(&error)
        }
    }
}

/// 504 for a revision that has not happened yet.
pub(crate) fn too_large_revision(requested: u64, current: u64) -> ApiStatus {
    let text = format!("Too large resource version: {requested}, current: {current}");
    let mut status = ApiStatus::new(504, StatusReason::Timeout, format!("Timeout: {text}"));
    let cause = kedge_meta::StatusCause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    };
    let details = kedge_meta::StatusDetails { causes: vec![cause], retry_after_seconds: Some(1), ..Default::default() };
    status.details = Some(Box::new(details));
    status
}

/// 503.
pub(crate) fn unavailable(why: &str) -> ApiStatus {
    ApiStatus::new(503, StatusReason::ServiceUnavailable, why)
}

/// 429 with the time after which a client may try again.
pub(crate) fn too_many_requests(why: &str, retry_after_seconds: u32) -> ApiStatus {
    let mut status = ApiStatus::new(429, StatusReason::TooManyRequests, why);
    let details = kedge_meta::StatusDetails { retry_after_seconds: Some(retry_after_seconds), ..Default::default() };
    status.details = Some(Box::new(details));
    status
}
