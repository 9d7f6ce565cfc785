//! Watch fan-out: many watchers of a collection, a few clients that patch its objects as fast as they can.
//!
//! Every patch writes the time at which it was sent, which every watcher finds in the event's bytes: the lag of an event
//! is the time from there to its arrival, with the write itself. Invariant: each watcher sees each update once, or the
//! measurement fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use memchr::{memchr, memmem};
use tokio::task::JoinSet;

use crate::api::Workspace;
use crate::connection::{Call, Connection};
use crate::load::{self, Until, micros};
use crate::objects::{self, SENT};

/// How long a watcher waits for its next event.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is put on the watches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fanout {
    pub(crate) watchers: u64,
    pub(crate) writers: u64,
    pub(crate) updates: u64,
    /// How many pods there are; the updates go round among them.
    pub(crate) pods: u64,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Fanned {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    /// Microseconds, sorted.
    pub(crate) lags: Vec<u32>,
}

/// Runs it; every watch starts at `resource_version`, and is open before the first update.
pub(crate) async fn run(workspace: &Workspace, fanout: Fanout, resource_version: &str) -> Result<Fanned> {
    let path = format!("{}?watch=1&resourceVersion={resource_version}", workspace.collection("pods"));
    let epoch = Instant::now();
    let mut watchers = JoinSet::new();
    for _ in 0..fanout.watchers {
        let mut connection = Connection::open(&workspace.target).await?;
        let body = connection.start(&Call::get(&path)).await?.into_body();
        watchers.spawn(watch(connection, body, epoch, fanout.updates));
    }
    let source = workspace.clone();
    let began = Instant::now();
    let written = load::run(&workspace.target, fanout.writers, Until::Requests(fanout.updates), move |number| {
        let sent = u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        Call::merge_patch(source.object("pods", number % fanout.pods), objects::patch(sent))
    });
    let written = written.await?;
    ensure!(written.requests == fanout.updates, "only {} updates were written in time", written.requests);
    let mut fanned = Fanned { events: 0, bytes: 0, elapsed: Duration::ZERO, lags: Vec::new() };
    while let Some(watched) = watchers.join_next().await {
        let watched = watched??;
        fanned.events += watched.lags.len() as u64;
        fanned.bytes += watched.bytes;
        fanned.lags.extend(watched.lags);
    }
    fanned.elapsed = began.elapsed();
    fanned.lags.sort_unstable();
    Ok(fanned)
}

struct Watched {
    lags: Vec<u32>,
    bytes: u64,
}

async fn watch(connection: Connection, mut body: Incoming, epoch: Instant, updates: u64) -> Result<Watched> {
    let mut watched = Watched { lags: Vec::new(), bytes: 0 };
    let mut lines = Lines::default();
    let finder = Arc::new(memmem::Finder::new(&format!("\"{SENT}\":\"")).into_owned());
    while (watched.lags.len() as u64) < updates {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
        let seen = watched.lags.len();
        let frame = frame.with_context(|| format!("a watcher saw only {seen} of {updates} updates"))?;
        let frame = frame.with_context(|| format!("a watch ended after {seen} of {updates} updates"))??;
        let Ok(bytes) = frame.into_data() else { continue };
        watched.bytes += bytes.len() as u64;
        let now = epoch.elapsed();
        lines.push(&bytes, |line| {
            let sent = sent(line, &finder)?;
            watched.lags.push(micros(now.saturating_sub(Duration::from_micros(sent))));
            Ok(())
        })?;
    }
    // Held until here, as the connection ends with it.
    drop(connection);
    Ok(watched)
}

/// When the update of an event was sent.
fn sent(line: &[u8], finder: &memmem::Finder<'_>) -> Result<u64> {
    let digits = finder.find(line).map(|at| &line[at + finder.needle().len()..]);
    let digits = digits.and_then(|rest| rest.get(..memchr(b'"', rest)?));
    match digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()) {
        Some(sent) => Ok(sent),
        None => bail!(
            "a watch brought something else than an update: {}",
            String::from_utf8_lossy(&line[..line.len().min(300)])
        ),
    }
}

/// Puts lines together out of frames.
#[derive(Default)]
pub(crate) struct Lines {
    /// The beginning of a line whose end has not come.
    open: Vec<u8>,
}

impl Lines {
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while let Some(end) = memchr(b'\n', bytes) {
            if self.open.is_empty() {
                take(&bytes[..end])?;
            } else {
                self.open.extend_from_slice(&bytes[..end]);
                take(&self.open)?;
                self.open.clear();
            }
            bytes = &bytes[end + 1..];
        }
        self.open.extend_from_slice(bytes);
        Ok(())
    }
}

impl Fanned {
    pub(crate) fn per_second(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64()
    }
}

/// Reads a whole watch's first events: the objects that are there, as a new client gets them.
pub(crate) async fn read_initial(workspace: &Workspace, resource: &str, events: u64) -> Result<()> {
    let mut connection = Connection::open(&workspace.target).await?;
    let call = Call::get(format!("{}?watch=1", workspace.collection(resource)));
    let mut body = connection.start(&call).await?.into_body();
    let mut seen = 0;
    while seen < events {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
        let frame = frame.with_context(|| format!("a watcher saw only {seen} of {events} objects"))?;
        let data: Bytes = frame.context("the watch ended")??.into_data().unwrap_or_default();
        seen += memchr::memchr_iter(b'\n', &data).count() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_out_of_frames() {
        fn check(frames: &[&str], expected: &[&str]) {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            for frame in frames {
                let take = |line: &[u8]| {
                    seen.push(String::from_utf8(line.to_vec())?);
                    Ok(())
                };
                lines.push(frame.as_bytes(), take).unwrap();
            }
            assert_eq!(seen, expected, "{frames:?}");
        }
        check(&["a\nb\n"], &["a", "b"]);
        check(&["a", "b\nc"], &["ab"]);
        check(&["a", "", "b", "\n\nc\n"], &["ab", "", "c"]);
    }

    #[test]
    fn the_time_is_found_in_an_event() {
        let finder = memmem::Finder::new("\"bench.kedge.dev/sent\":\"");
        let event = br#"{"type":"MODIFIED","object":{"metadata":{"annotations":{"bench.kedge.dev/sent":"1234"}}}}"#;
        assert_eq!(sent(event, &finder).unwrap(), 1234);
        assert!(sent(br#"{"type":"ERROR","object":{}}"#, &finder).is_err());
    }
}
