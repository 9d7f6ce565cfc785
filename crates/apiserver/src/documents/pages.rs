//! `/statusz` and `/flagz` of this server, and `/debug/flags/v`.

use http::header::{WARNING, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, StatusCode};
use kedge_zpages::{Component, Page};
use serde_json::Value;

use super::root;
use crate::call::Call;
use crate::core::Core;
use crate::negotiate::accept_ranges;
use crate::reply::{self, Reply};

pub(super) fn statusz(core: &Core, call: &Call) -> Reply {
    let root = root(core);
    let paths = root["paths"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let page = kedge_zpages::statusz(&component(core), paths, core.clock.now(), &accept_ranges(&call.headers))?;
    Ok(answer(page))
}

pub(super) fn flagz(core: &Core, call: &Call) -> Reply {
    Ok(answer(kedge_zpages::flagz(&component(core), &accept_ranges(&call.headers))?))
}

/// Sets how much is logged: PUT with a number.
pub(super) async fn verbosity(core: &Core, call: &mut Call) -> Reply {
    let body = call.read_body(core.config.max_request_body_bytes).await?;
    let (code, text) = kedge_zpages::answer_verbosity(call.method == Method::PUT, &body);
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = reply::bytes(code, HeaderValue::from_static("text/plain"), text);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

fn component(core: &Core) -> Component {
    Component { name: "apiserver", started: core.started, flags: core.config.flags.clone() }
}

fn answer(page: Page) -> http::Response<crate::body::Body> {
    let Page { content_type, text, warning } = page;
    let mut response = reply::bytes(StatusCode::OK, HeaderValue::from_static(content_type), text);
    if let Some(warning) = warning {
        response.headers_mut().insert(WARNING, HeaderValue::from_static(warning));
    }
    response
}
