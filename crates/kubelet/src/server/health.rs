//! `/healthz`: whether the node agent works, as upstream's three checks say.
//!
//! Invariant: it answers at once, whatever hangs elsewhere.

use std::fmt::Write;
use std::time::Duration;

use http::{Response, StatusCode};

use super::{Body, text};
use crate::agent::Agent;

/// The loop that looks after pods lists the runtime every second; upstream gives its own loop two minutes.
const SYNC_PATIENCE: Duration = Duration::from_secs(120);
const CHECKS: [&str; 3] = ["ping", "log", "syncloop"];

/// One check by name, or all.
pub(super) fn answer(agent: &Agent, name: &[&str], query: &str) -> Response<Body> {
    let alive = agent.states.last_listed().is_none_or(|at| at.elapsed() < SYNC_PATIENCE);
    let passes = |check: &str| check != "syncloop" || alive;
    match name {
        [] | [""] => {
            let verbose = query.split('&').any(|pair| pair.split('=').next() == Some("verbose"));
            whole(&CHECKS.map(|check| (check, passes(check))), verbose)
        }
        [one] if CHECKS.contains(one) && passes(one) => text(StatusCode::OK, "ok"),
        [one] if CHECKS.contains(one) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error: the runtime was not listed lately\n")
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn whole(checks: &[(&str, bool)], verbose: bool) -> Response<Body> {
    let failed = checks.iter().any(|(_, passes)| !passes);
    if !failed && !verbose {
        return text(StatusCode::OK, "ok");
    }
    let mut report = String::new();
    for (check, passes) in checks {
        // Writing to a String can't fail.
        let _ = match passes {
            true => writeln!(report, "[+]{check} ok"),
            false => writeln!(report, "[-]{check} failed: reason withheld"),
        };
    }
    report.push_str(if failed { "healthz check failed\n" } else { "healthz check passed\n" });
    text(if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }, report)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn one_failure_fails_all() {
        for (checks, verbose, code, expected) in [
            ([("ping", true), ("syncloop", true)], false, 200, "ok"),
            ([("ping", true), ("syncloop", true)], true, 200, "[+]ping ok\n[+]syncloop ok\nhealthz check passed\n"),
            (
                [("ping", true), ("syncloop", false)],
                false,
                500,
                "[+]ping ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n",
            ),
        ] {
            let response = whole(&checks, verbose);
            assert_eq!(response.status().as_u16(), code);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
        }
    }
}
