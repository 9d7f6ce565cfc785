//! What the last look found and cost, for Prometheus, and whether this instance lives.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use kedge_diagnosis::{Certainty, Diagnosis};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const HEADER_PATIENCE: Duration = Duration::from_secs(10);
const MOST_CONNECTIONS: usize = 16;

/// The figures. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics(Arc<Mutex<Figures>>);

#[derive(Debug, Default)]
struct Figures {
    is_leader: bool,
    findings: BTreeMap<(&'static str, &'static str), usize>,
    not_seen: usize,
    looks: u64,
    failed: u64,
    seconds: f64,
    processor_seconds: f64,
    last: Option<(Timestamp, Duration)>,
}

impl Metrics {
    /// Whether this instance works.
    pub(crate) fn leads(&self, leads: bool) {
        let mut figures = self.0.lock();
        figures.is_leader = leads;
        if !leads {
            // Another says what is wrong now.
            figures.findings.clear();
        }
    }

    /// A look that saw the cluster.
    pub(crate) fn looked(&self, diagnosis: &Diagnosis, at: Timestamp, took: Duration, processor: Duration) {
        let mut figures = self.0.lock();
        // What once was found is zero afterwards, and not absent.
        figures.findings.values_mut().for_each(|count| *count = 0);
        for cause in &diagnosis.causes {
            *figures.findings.entry((cause.id, word(cause.confidence))).or_default() += 1;
        }
        figures.not_seen = diagnosis.not_seen.len();
        figures.looks += 1;
        figures.seconds += took.as_secs_f64();
        figures.processor_seconds += processor.as_secs_f64();
        figures.last = Some((at, took));
    }

    /// A look that saw nothing.
    pub(crate) fn failed(&self) {
        self.0.lock().failed += 1;
    }

    fn text(&self) -> String {
        let figures = self.0.lock();
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, lines: Vec<(String, f64)>| {
            let _ = writeln!(text, "# HELP kedge_doctor_{name} {help}\n# TYPE kedge_doctor_{name} {kind}");
            for (suffix, value) in lines {
                let _ = writeln!(text, "kedge_doctor_{name}{suffix} {value}");
            }
        };
        let one = |value: f64| vec![(String::new(), value)];
        let findings = figures
            .findings
            .iter()
            .map(|((id, confidence), count)| (format!("{{id=\"{id}\",confidence=\"{confidence}\"}}"), *count as f64));
        metric("findings", "gauge", "Causes that the last look found.", findings.collect());
        metric("not_seen", "gauge", "What the last look could not see.", one(figures.not_seen as f64));
        let took = vec![("_sum".to_owned(), figures.seconds), ("_count".to_owned(), figures.looks as f64)];
        metric("look_duration_seconds", "summary", "How long looks took.", took);
        let processor = one(figures.processor_seconds);
        metric("look_processor_seconds_total", "counter", "Processor time that looks took.", processor);
        metric("looks_failed_total", "counter", "Looks to which nobody answered.", one(figures.failed as f64));
        let leader = one(f64::from(u8::from(figures.is_leader)));
        metric("leader", "gauge", "Whether this instance looks.", leader);
        if let Some((at, took)) = figures.last {
            metric("last_look_timestamp_seconds", "gauge", "When the last look ended.", one(at.as_second() as f64));
            metric("last_look_duration_seconds", "gauge", "How long it took.", one(took.as_secs_f64()));
        }
        text
    }
}

fn word(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Possible => "possible",
        Certainty::Likely => "likely",
        Certainty::Proven => "proven",
    }
}

/// Serves them until `shutdown`.
///
/// # Errors
/// Where the address is taken.
pub(crate) async fn serve(address: SocketAddr, metrics: Metrics, shutdown: CancellationToken) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors: others have to end first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let metrics = metrics.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.uri().path(), &metrics);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended");
                }
                drop(permit);
            });
        }
    });
    Ok(())
}

fn answer(path: &str, metrics: &Metrics) -> Response<Full<Bytes>> {
    let (status, text) = match path {
        "/metrics" => (StatusCode::OK, metrics.text()),
        "/healthz" | "/livez" | "/readyz" => (StatusCode::OK, "ok".to_owned()),
        _ => (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::cause;
    use kedge_diagnosis::{Evidence, diagnose};

    #[test]
    fn what_is_gone_is_zero() {
        let metrics = Metrics::default();
        let mut diagnosis = diagnose(&Evidence::default());
        diagnosis.causes = vec![cause("E2", "one"), cause("E2", "two")];
        let look = |diagnosis: &Diagnosis| {
            metrics.looked(diagnosis, Timestamp::UNIX_EPOCH, Duration::from_millis(500), Duration::from_millis(20));
        };
        look(&diagnosis);
        assert!(
            metrics.text().contains("kedge_doctor_findings{id=\"E2\",confidence=\"proven\"} 2\n"),
            "{}",
            metrics.text()
        );
        diagnosis.causes.clear();
        look(&diagnosis);
        let text = metrics.text();
        assert!(text.contains("kedge_doctor_findings{id=\"E2\",confidence=\"proven\"} 0\n"), "{text}");
        assert!(text.contains("kedge_doctor_look_duration_seconds_sum 1\n"), "{text}");
        assert!(text.contains("kedge_doctor_look_duration_seconds_count 2\n"), "{text}");
    }
}
