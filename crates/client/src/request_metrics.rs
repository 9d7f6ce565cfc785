//! What a component asks of the API, under client-go's names.
//!
//! Whoever makes the client hands each answer in. Invariant: a request is counted once, when its answer's head is there or
//! it has failed; a watch is one request.

use std::fmt;
use std::sync::{Arc, OnceLock};

use kedge_metrics::{Counters, Histograms, Text};
use kube::Client;

use crate::observe::{Request, observed};

const BOUNDS: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
/// Upstream's word for a request without an answer.
const NO_ANSWER: &str = "<error>";

/// Requests, counted.
#[derive(Debug)]
pub struct RequestMetrics {
    total: Counters,
    durations: Histograms,
    way: Way,
}

/// Who carries the requests, and says in Prometheus' text format how.
#[derive(Default)]
struct Way(OnceLock<Box<dyn Fn() -> String + Send + Sync>>);

impl fmt::Debug for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.get().is_some() { "Way(known)" } else { "Way(none)" })
    }
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            total: Counters::new(
                "rest_client_requests_total",
                &["code", "host", "method"],
                "Requests to the API, by the status of their answers.",
            ),
            durations: Histograms::new(
                "rest_client_request_duration_seconds",
                &["host", "verb"],
                BOUNDS,
                "Time until the head of an answer.",
            ),
            way: Way::default(),
        }
    }
}

impl RequestMetrics {
    /// A client whose requests are counted here, as asked of `host`.
    pub fn counting(self: &Arc<Self>, client: Client, host: &str) -> Client {
        let (metrics, host) = (self.clone(), host.to_owned());
        observed(client, move |request| metrics.count(&host, request))
    }

    /// Adds what carries the requests; the first one counts.
    pub fn carried_by(&self, text: impl Fn() -> String + Send + Sync + 'static) {
        // There is one way only.
        let _ = self.way.0.set(Box::new(text));
    }

    fn count(&self, host: &str, request: &Request) {
        let code = request.code.map_or_else(|| NO_ANSWER.to_owned(), |code| code.as_u16().to_string());
        self.total.count(&[&code, host, request.method.as_str()]);
        self.durations.observe(&[host, request.method.as_str()], request.took);
    }

    /// All of it.
    pub fn write(&self, text: &mut Text) {
        self.total.write(text);
        self.durations.write(text);
        if let Some(way) = self.way.0.get() {
            text.lines(&way());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn requests_are_counted_by_their_answers() {
        let metrics = RequestMetrics::default();
        for code in [Some(200), Some(200), Some(409), None] {
            let code = code.map(|code| http::StatusCode::from_u16(code).unwrap());
            let request = Request { method: http::Method::GET, code, took: Duration::from_millis(10) };
            metrics.count("192.0.2.1:6443", &request);
        }
        metrics.carried_by(|| "way_connections 1\n".to_owned());
        let mut text = Text::default();
        metrics.write(&mut text);
        let text = text.finish();
        for expected in [
            "way_connections 1",
            "rest_client_requests_total{code=\"200\",host=\"192.0.2.1:6443\",method=\"GET\"} 2",
            "rest_client_requests_total{code=\"409\",host=\"192.0.2.1:6443\",method=\"GET\"} 1",
            "rest_client_requests_total{code=\"<error>\",host=\"192.0.2.1:6443\",method=\"GET\"} 1",
            "rest_client_request_duration_seconds_bucket{host=\"192.0.2.1:6443\",verb=\"GET\",le=\"0.025\"} 4",
        ] {
            assert!(text.lines().any(|line| line == expected), "{text}");
        }
    }
}
