//! Paths that are no resource: discovery, OpenAPI, health, version, metrics, keys of token issuers, component status.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, Response, StatusCode};
use kedge_audit::Audit;
use kedge_meta::ApiStatus;
use kedge_store::ListRequest;
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::Call;
use crate::core::Core;
use crate::metrics::{single, write_process};
use crate::reply::{self, Reply};

mod discovery;
mod health;
mod openapi;
mod pages;
mod version;

pub(crate) use openapi::Documents;

/// Answers a request for a path that is no resource.
pub(crate) async fn answer(core: &Arc<Core>, call: &mut Call) -> Reply {
    let path = call.path.trim_matches('/');
    if path == "debug/flags/v" {
        return pages::verbosity(core, call).await;
    }
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(ApiStatus::no_such_path());
    }
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    match (first, rest) {
        ("", _) => Ok(reply::document(StatusCode::OK, call.accepted()?.encoding, &root(core))),
        ("healthz" | "livez" | "readyz", check) => health::answer(core, call, first, check).await,
        ("version", "") => version::answer(call),
        ("metrics", "") => Ok(metrics(core).await),
        ("metrics", "slis") => Ok(exposition(core.metrics.healthchecks.text())),
        ("statusz", "") => pages::statusz(core, call),
        ("flagz", "") => pages::flagz(core, call),
        ("debug", rest) => debug(core, call, rest).await,
        ("api" | "apis", rest) => discovery::answer(core, call, first, rest),
        ("openapi", rest) => openapi::answer(core, call, rest),
        (".well-known", "openid-configuration") => Ok(issuer(core)),
        ("openid", "v1/jwks") => {
            let content_type = http::HeaderValue::from_static("application/jwk-set+json");
            Ok(reply::bytes(StatusCode::OK, content_type, core.token_keys.load().jwks().to_string()))
        }
        ("kedge", "v1/status") => {
            let reports = json!({"components": core.board.reports()});
            Ok(reply::document(StatusCode::OK, call.accepted()?.encoding, &reports))
        }
        _ => Err(ApiStatus::no_such_path()),
    }
}

/// The paths that lead somewhere.
fn root(core: &Core) -> Value {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/flagz",
        "/healthz",
        "/kedge/v1/status",
        "/livez",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/statusz",
        "/version",
    ]
    .map(str::to_owned)
    .into();
    let registry = core.registry.load();
    for (group, versions) in registry.groups().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.sort();
    json!({"paths": paths})
}

/// What is not for everyday, and listed nowhere.
async fn debug(core: &Core, call: &Call, path: &str) -> Reply {
    if path == "flags" || path.starts_with("flags/") {
        let content_type = http::HeaderValue::from_static("text/html; charset=utf-8");
        return Ok(reply::bytes(StatusCode::OK, content_type, kedge_zpages::DEBUG_FLAGS.to_owned()));
    }
    let Some(name) = path.strip_prefix("api_priority_and_fairness/") else { return Err(ApiStatus::no_such_path()) };
    let with_details = call.query.non_empty("includeRequestDetails").is_some();
    core.flow.dump(core, name, with_details).await.map(reply::plain).ok_or_else(ApiStatus::no_such_path)
}

/// What verifiers of service-account tokens need to know.
fn issuer(core: &Core) -> Response<Body> {
    let issuer = &core.config.service_account_issuer;
    let address = std::net::SocketAddr::new(core.config.advertise_address, core.config.secure_port);
    let document = json!({
        "issuer": issuer,
        "jwks_uri": format!("https://{address}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": core.token_keys.load().algorithms(),
    });
    reply::bytes(StatusCode::OK, reply::JSON, document.to_string())
}

/// How many objects of each resource there are.
async fn write_objects(core: &Core, text: &mut String) {
    let name = "apiserver_storage_objects";
    let help = "Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.";
    crate::metrics::header(text, name, "gauge", help);
    let registry = core.registry.load_full();
    let mut prefixes: BTreeMap<String, String> = BTreeMap::new();
    for resource in registry.all().filter(|resource| resource.is_stored()) {
        let kind = &resource.kind;
        let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
        prefixes.entry(kind.prefix("")).or_insert_with(|| format!("{}{group}", kind.resource));
    }
    for (prefix, resource) in prefixes {
        // What is visible here needs no question to another server.
        let at = Some(core.store.revision());
        let page = core.store.list(ListRequest { prefix, limit: Some(1), at, ..ListRequest::default() }).await;
        let number = page.map_or(-1, |page| i64::try_from(page.records.len() + page.remaining).unwrap_or(i64::MAX));
        text.push_str(&format!("{name}{{resource=\"{resource}\"}} {number}\n"));
    }
}

async fn metrics(core: &Core) -> Response<Body> {
    let mut text = String::with_capacity(16 << 10);
    core.metrics.write(&mut text);
    let (reading, writing) = core.flow.running();
    let name = "apiserver_current_inflight_requests";
    crate::metrics::header(
        &mut text,
        name,
        "gauge",
        "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
    );
    text.push_str(&format!(
        "{name}{{request_kind=\"mutating\"}} {writing}\n{name}{{request_kind=\"readOnly\"}} {reading}\n"
    ));
    core.flow.write_metrics(&mut text);
    text.push_str(&core.audit.as_ref().map_or_else(Audit::metrics_when_off, |audit| audit.metrics()));
    core.admission.write_metrics(&mut text);
    text.push_str(&core.extensions.metrics());
    write_objects(core, &mut text).await;
    let stats = core.store.stats();
    single(&mut text, "kedge_store_keys", "gauge", "Live keys in the store.", stats.keys as f64);
    single(
        &mut text,
        "apiserver_storage_size_bytes",
        "gauge",
        "Size of the live values in the store.",
        stats.value_bytes as f64,
    );
    single(&mut text, "kedge_store_history_changes", "gauge", "Changes kept for watches.", stats.history as f64);
    single(
        &mut text,
        "kedge_store_revision",
        "counter",
        "The store's latest revision.",
        core.store.revision().0 as f64,
    );
    for (name, latency) in [("last", stats.last_sync), ("slowest", stats.slowest_sync)] {
        if let Some(latency) = latency {
            let name = format!("kedge_store_{name}_sync_seconds");
            single(&mut text, &name, "gauge", "Latency of commits to disk.", latency.as_secs_f64());
        }
    }
    write_process(&mut text, core.started);
    exposition(text)
}

/// An answer in Prometheus' format.
fn exposition(text: String) -> Response<Body> {
    let mut response = reply::plain(text);
    let content_type = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    response
}
