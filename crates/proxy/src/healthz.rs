//! `/healthz` and `/livez` of the proxy, in upstream's form.
//!
//! Healthy means that no change waits for longer than the patience; `/healthz` also fails while the node is leaving, so
//! that load balancers turn away from it.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use kedge_meta::{Clock, format_time};

use crate::http::Answer;

/// For how long a change may wait before the proxy counts as sick.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the proxy knows about its own health.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    /// When the rules last were what they should be.
    pub(crate) last_updated: Timestamp,
    /// Since when a change has been waiting.
    pub(crate) waiting_since: Option<Timestamp>,
    /// Whether the node takes traffic.
    pub(crate) node_eligible: bool,
}

impl Health {
    pub(crate) fn is_healthy(&self, now: Timestamp) -> bool {
        self.waiting_since.is_none_or(|since| now.duration_since(since).unsigned_abs() < PATIENCE)
    }
}

/// The answer for a path.
pub(crate) fn answer(path: &str, health: &Health, clock: &Arc<dyn Clock>) -> Answer {
    let now = clock.now();
    let healthy = health.is_healthy(now);
    let (known, good) = match path {
        "/healthz" => (true, healthy && health.node_eligible),
        "/livez" => (true, healthy),
        _ => (false, false),
    };
    if !known {
        return Answer { status: StatusCode::NOT_FOUND, headers: Vec::new(), body: "404 page not found\n".to_owned() };
    }
    let last_updated = if healthy { now } else { health.last_updated };
    let mut body = serde_json::json!({"lastUpdated": format_time(last_updated), "currentTime": format_time(now)});
    if path == "/healthz" {
        body["nodeEligible"] = health.node_eligible.into();
    }
    Answer {
        status: if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
        headers: vec![("Content-Type", "application/json".to_owned())],
        body: body.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_meta::ManualClock;

    #[test]
    fn a_waiting_change_makes_it_sick_and_a_leaving_node_ineligible() {
        let start = Timestamp::UNIX_EPOCH;
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(start + Duration::from_secs(100)));
        let check = |path: &str, waiting: Option<u64>, node_eligible, expected: u16| {
            let waiting_since = waiting.map(|seconds| start + Duration::from_secs(seconds));
            let health = Health { last_updated: start, waiting_since, node_eligible };
            assert_eq!(answer(path, &health, &clock).status.as_u16(), expected, "{path} {waiting:?} {node_eligible}");
        };
        check("/healthz", None, true, 200);
        check("/healthz", Some(99), true, 200);
        check("/healthz", Some(10), true, 503);
        check("/healthz", None, false, 503);
        check("/livez", None, false, 200);
        check("/livez", Some(10), true, 503);
        check("/", None, true, 404);
    }
}
