//! Pods of a running node: from their creation to Running as a client's watch sees it, one by one and a hundred at once.
//!
//! Invariant: a pod counts once its `status.phase` is Running in an event of the watch.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::connection::{Call, Connection};
use crate::target::Target;
use crate::watchers::Lines;

const PODS: &str = "/api/v1/namespaces/default/pods";
const PATIENCE: Duration = Duration::from_secs(120);

/// Makes pods one after the other; how long each took, in microseconds.
pub(super) async fn one_by_one(target: &Target, image: &str, count: usize) -> Result<Vec<u32>> {
    let mut watch = PodWatch::open(target).await?;
    let mut connection = Connection::open(target).await?;
    let mut took = Vec::new();
    for index in 0..count {
        let name = format!("one-{index}");
        let began = Instant::now();
        connection.send(&create(&name, image)).await?;
        watch.until(|pod| pod.runs && pod.name == name).await.with_context(|| format!("{name} does not run"))?;
        took.push(u32::try_from(began.elapsed().as_micros())?);
    }
    clear(&mut connection, &mut watch, count).await?;
    took.sort_unstable();
    Ok(took)
}

/// Makes pods all at once and leaves them; how long until the last one ran.
pub(super) async fn all_at_once(target: &Target, image: &str, count: usize) -> Result<Duration> {
    let mut watch = PodWatch::open(target).await?;
    let mut connection = Connection::open(target).await?;
    let began = Instant::now();
    for index in 0..count {
        connection.send(&create(&format!("many-{index}"), image)).await?;
    }
    let mut running = HashSet::new();
    let waited = watch
        .until(|pod| {
            if pod.runs {
                running.insert(pod.name.clone());
            }
            running.len() == count
        })
        .await;
    waited.with_context(|| format!("of {count} pods {} run", running.len()))?;
    Ok(began.elapsed())
}

async fn clear(connection: &mut Connection, watch: &mut PodWatch, count: usize) -> Result<()> {
    connection.send(&Call::delete(format!("{PODS}?labelSelector=bench%3Dpod&gracePeriodSeconds=0"))).await?;
    let mut gone = 0;
    let waited = watch
        .until(|pod| {
            gone += usize::from(pod.gone);
            gone == count
        })
        .await;
    waited.with_context(|| format!("of {count} pods {gone} are gone"))
}

fn create(name: &str, image: &str) -> Call {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "bench": "pod" } },
        "spec": { "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": image }] },
    });
    Call::create(PODS, Bytes::from(pod.to_string()))
}

/// What an event says about a pod.
struct Seen {
    name: String,
    runs: bool,
    gone: bool,
}

struct PodWatch {
    body: Incoming,
    lines: Lines,
    pending: Vec<Seen>,
    /// Held, as the connection ends with it.
    _connection: Connection,
}

impl PodWatch {
    async fn open(target: &Target) -> Result<Self> {
        let mut connection = Connection::open(target).await?;
        let call = Call::get(format!("{PODS}?watch=1&labelSelector=bench%3Dpod"));
        let body = connection.start(&call).await?.into_body();
        Ok(Self { body, lines: Lines::default(), pending: Vec::new(), _connection: connection })
    }

    /// Reads events until one is the wanted one.
    async fn until(&mut self, mut wanted: impl FnMut(&Seen) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for seen in std::mem::take(&mut self.pending) {
                if wanted(&seen) {
                    return Ok(());
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "the pods did not do what was waited for within {PATIENCE:?}");
            let Ok(frame) = tokio::time::timeout(left, self.body.frame()).await else { continue };
            let data = frame.context("the watch ended")??.into_data().unwrap_or_default();
            let pending = &mut self.pending;
            self.lines.push(&data, |line| {
                pending.push(seen(&serde_json::from_slice(line)?));
                Ok(())
            })?;
        }
    }
}

fn seen(event: &Value) -> Seen {
    let pod = &event["object"];
    Seen {
        name: pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        runs: pod["status"]["phase"] == "Running",
        gone: event["type"] == "DELETED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_running_pod_runs() {
        let event = |kind: &str, phase: &str| {
            seen(&json!({"type": kind, "object": {"metadata": {"name": "a"}, "status": {"phase": phase}}}))
        };
        assert!(event("MODIFIED", "Running").runs && !event("MODIFIED", "Pending").runs);
        assert!(event("DELETED", "Running").gone && !event("ADDED", "Running").gone);
    }
}
