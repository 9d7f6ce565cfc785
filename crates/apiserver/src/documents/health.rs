//! `/healthz`, `/livez`, `/readyz`, with `?verbose`, `?exclude=` and single checks below the path.

use http::header::HeaderValue;
use http::{Response, StatusCode};
use kedge_meta::ApiStatus;

use crate::body::Body;
use crate::call::Call;
use crate::core::Core;
use crate::reply::{self, Reply};

/// The checks of each path, in upstream's words.
const CHECKS: [&str; 3] = ["ping", "log", "etcd"];

/// Only readiness looks at these.
const READY_CHECKS: [&str; 2] = ["informer-sync", "shutdown"];

pub(super) fn answer(core: &Core, call: &Call, endpoint: &str, check: &str) -> Reply {
    let mut names: Vec<&str> = CHECKS.to_vec();
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
    let results: Vec<(&str, Option<bool>)> =
        names.iter().map(|name| (*name, (!excluded.contains(name)).then(|| passes(core, name)))).collect();
    let unknown: Vec<&&str> = excluded.iter().filter(|name| !names.contains(name)).collect();
    Ok(report(endpoint, &results, &unknown, call.query.get("verbose").is_some()))
}

fn passes(core: &Core, check: &str) -> bool {
    match check {
        "shutdown" => !core.shutdown.is_cancelled(),
        "etcd" => core.store.revision().0 > 0,
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
