//! `/statusz` and `/flagz` of this server.

use http::header::WARNING;
use http::{HeaderValue, StatusCode};
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
