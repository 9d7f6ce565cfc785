//! `/healthz`, `/livez`, `/readyz`, with `?verbose`, `?exclude=` and single checks below the path.
//!
//! The store is asked each time, but for `/livez`: a server whose store is away has to wait for it, and one that were
//! started anew for that would lose its caches and gain nothing.

use std::time::Duration;

use http::header::HeaderValue;
use http::{Response, StatusCode};
use kedge_meta::ApiStatus;

use crate::body::Body;
use crate::call::Call;
use crate::core::Core;
use crate::reply::{self, Reply};

const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

/// The checks of each path, in upstream's words.
const CHECKS: [&str; 2] = ["ping", "log"];

/// Whether the store answers.
const STORE_CHECK: &str = "etcd";

/// Only readiness looks at these.
const READY_CHECKS: [&str; 3] = ["etcd-readiness", "informer-sync", "shutdown"];

/// How long the store has for its answer.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn answer(core: &Core, call: &Call, endpoint: &str, check: &str) -> Reply {
    let mut names: Vec<&str> = CHECKS.to_vec();
    if endpoint != "livez" {
        names.push(STORE_CHECK);
    }
    names.extend(["poststarthook/rbac/bootstrap-roles", "poststarthook/bootstrap-controller"]);
    if endpoint == "readyz" {
        names.extend(READY_CHECKS);
    }
    if !check.is_empty() {
        if !names.contains(&check) {
            return Err(ApiStatus::no_such_path());
        }
        names = vec![check];
    }
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    // Asked once for both of its names.
    let asks = |name: &&str| matches!(*name, STORE_CHECK | "etcd-readiness") && !excluded.contains(name);
    let stored = !names.iter().any(asks) || store_answers(core).await;
    let results: Vec<(&str, Option<bool>)> =
        names.iter().map(|name| (*name, (!excluded.contains(name)).then(|| passes(core, name, stored)))).collect();
    if let (true, Some(path)) = (check.is_empty(), ENDPOINTS.into_iter().find(|own| *own == endpoint)) {
        for (name, passed) in results.iter().filter_map(|(name, passed)| Some((name, (*passed)?))) {
            core.metrics.healthchecks.checked(name, path, passed);
        }
    }
    let unknown: Vec<&&str> = excluded.iter().filter(|name| !names.contains(name)).collect();
    Ok(report(endpoint, &results, &unknown, call.query.get("verbose").is_some()))
}

async fn store_answers(core: &Core) -> bool {
    match tokio::time::timeout(STORE_PATIENCE, core.store.refresh()).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the store does not answer: this server is not ready");
            false
        }
        Err(_) => {
            tracing::warn!(waited = ?STORE_PATIENCE, "the store does not answer: this server is not ready");
            false
        }
    }
}

/// The other checks hold from the first answer on: what they name is done before the server listens.
fn passes(core: &Core, check: &str, stored: bool) -> bool {
    match check {
        "shutdown" => !core.shutdown.is_cancelled(),
        STORE_CHECK | "etcd-readiness" => stored,
        _ => true,
    }
}

fn report(endpoint: &str, results: &[(&str, Option<bool>)], unknown: &[&&str], verbose: bool) -> Response<Body> {
    let failed: Vec<&str> =
        results.iter().filter(|(_, passed)| *passed == Some(false)).map(|(name, _)| *name).collect();
    if failed.is_empty() && !verbose {
        return reply::plain("ok");
    }
    let mut text = String::new();
    for (name, passed) in results {
        text.push_str(&match passed {
            Some(true) => format!("[+]{name} ok\n"),
            Some(false) => format!("[-]{name} failed: reason withheld\n"),
            None => format!("[+]{name} excluded: ok\n"),
        });
    }
    if !unknown.is_empty() {
        let names: Vec<String> = unknown.iter().map(|name| format!("\"{name}\"")).collect();
        text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", names.join(", ")));
    }
    if failed.is_empty() {
        text.push_str(&format!("{endpoint} check passed\n"));
        return reply::plain(text);
    }
    text.push_str(&format!("{endpoint} check failed\n"));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    reply::bytes(StatusCode::INTERNAL_SERVER_ERROR, plain, text)
}
