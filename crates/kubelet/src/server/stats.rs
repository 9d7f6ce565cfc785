//! `/stats/summary`.

use http::Response;

use super::streams::query_values;
use super::{Body, Server, json};

/// The whole summary, or with `only_cpu_and_memory` just that.
pub(super) async fn summary(server: &Server, query: &str) -> Response<Body> {
    let only = query_values(query, "only_cpu_and_memory");
    let summary = match only.iter().any(|value| matches!(value.as_str(), "true" | "1")) {
        true => server.collector.cpu_and_memory().await,
        false => server.collector.summary().await,
    };
    json(&*summary)
}
