//! Paths that are no resource: discovery, OpenAPI, health, version, metrics.

use std::sync::Arc;

use http::Method;
use kedge_meta::ApiStatus;

use crate::call::Call;
use crate::core::Core;
use crate::reply::{self, Reply};

mod health;
mod version;

/// Answers a request for a path that is no resource.
pub(crate) async fn answer(core: &Arc<Core>, call: &Call) -> Reply {
    let path = call.path.trim_end_matches('/');
    let path = if path.is_empty() { "/" } else { path };
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(ApiStatus::no_such_path());
    }
    let (first, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    match first {
        "healthz" | "livez" | "readyz" => health::answer(core, call, first, rest),
        "version" => Ok(version::answer(call)?),
        "metrics" => Ok(metrics(core)),
        _ => Err(ApiStatus::no_such_path()),
    }
}

fn metrics(core: &Core) -> http::Response<crate::body::Body> {
    let mut text = String::with_capacity(16 << 10);
    core.metrics.write(&mut text);
    reply::plain(text)
}
