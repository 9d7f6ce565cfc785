//! Closed-loop load: every client makes its next request when the last one was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use crate::connection::{Call, Connection};
use crate::figures::{Figure, milliseconds, percentile};
use crate::server::cpu_time;
use crate::target::Target;

/// What counts requests ends after this even if it is not through, so that a run stays bounded.
const PATIENCE: Duration = Duration::from_secs(25);

/// When a load ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// After so many requests.
    Requests(u64),
    /// After so many requests, or after so long.
    Within(u64, Duration),
    /// After so long; requests that run are answered.
    Elapsed(Duration),
}

impl Until {
    fn bounds(self) -> (u64, Duration) {
        match self {
            Until::Requests(count) => (count, PATIENCE),
            Until::Within(count, time) => (count, time),
            Until::Elapsed(time) => (u64::MAX, time),
        }
    }
}

/// What a load did.
#[derive(Debug)]
pub(crate) struct Measure {
    pub(crate) clients: u64,
    pub(crate) requests: u64,
    /// Of the answers' bodies.
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    /// Microseconds, sorted.
    pub(crate) latencies: Vec<u32>,
    /// The server's, where it is known.
    pub(crate) processor_time: Option<Duration>,
}

/// Puts a load on a target. `call` makes the request of a number; numbers are handed out in order, each once.
pub(crate) async fn run<F>(target: &Target, clients: u64, until: Until, call: F) -> Result<Measure>
where
    F: Fn(u64) -> Call + Send + Sync + 'static,
{
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(Connection::open(target).await?);
    }
    let (count, patience) = until.bounds();
    let (call, next) = (Arc::new(call), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    let used = || target.process.map(cpu_time);
    let (began, before) = (Instant::now(), used());
    for connection in connections {
        let (call, next) = (call.clone(), next.clone());
        tasks.spawn(client(connection, call, next, count, began + patience));
    }
    let (elapsed, latencies) = (Duration::ZERO, Vec::new());
    let mut measure = Measure { clients, requests: 0, bytes: 0, elapsed, latencies, processor_time: None };
    while let Some(done) = tasks.join_next().await {
        let (latencies, bytes) = done??;
        measure.latencies.extend(latencies);
        measure.bytes += bytes;
    }
    measure.elapsed = began.elapsed();
    measure.processor_time = used().zip(before).map(|(after, before)| after.saturating_sub(before));
    measure.requests = measure.latencies.len() as u64;
    measure.latencies.sort_unstable();
    Ok(measure)
}

async fn client<F: Fn(u64) -> Call>(
    mut connection: Connection,
    call: Arc<F>,
    next: Arc<AtomicU64>,
    count: u64,
    deadline: Instant,
) -> Result<(Vec<u32>, u64)> {
    let mut latencies = Vec::new();
    let mut bytes = 0;
    while Instant::now() < deadline {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            break;
        }
        let call = call(number);
        let began = Instant::now();
        bytes += connection.send(&call).await?;
        latencies.push(micros(began.elapsed()));
    }
    Ok((latencies, bytes))
}

/// Whole microseconds; more than an hour does not happen.
pub(crate) fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

impl Measure {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// As a figure of the API table.
    pub(crate) fn figure(&self, what: impl Into<String>, compare: &'static str) -> Figure {
        let mut note = format!("{} clients, {} requests", self.clients, self.requests);
        if let Some(used) = self.processor_time {
            let each = used.as_secs_f64() * 1e6 / self.requests.max(1) as f64;
            note.push_str(&format!(", {each:.0} \u{b5}s each of the server's processor time"));
        }
        Figure {
            bench: "api",
            what: what.into(),
            value: self.per_second(),
            unit: "/s",
            p50_milliseconds: Some(milliseconds(percentile(&self.latencies, 0.5))),
            p99_milliseconds: Some(milliseconds(percentile(&self.latencies, 0.99))),
            megabytes_per_second: Some(self.bytes as f64 / 1e6 / self.elapsed.as_secs_f64()),
            note,
            compare,
        }
    }
}
