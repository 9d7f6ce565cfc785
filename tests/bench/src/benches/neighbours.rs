//! A quiet client beside a noisy one: how long its requests take while somebody else lists everything in a loop.
//!
//! The two are different users, so that a server may tell them apart. The quiet one makes its next request at a fixed time,
//! however long the last one took; latency counts from then. It has a thread of its own, so that it does not wait for the
//! noisy one where they have nothing in common but this program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::Workspace;
use crate::connection::{Call, Connection};
use crate::figures::{Figure, Report, milliseconds, percentile};
use crate::load::micros;
use crate::objects;

const QUIET: &str = "bench-quiet";
const NOISY: &str = "bench-noisy";

/// Connections of the noisy client, each with a list under way.
const LISTERS: u64 = 8;

/// The quiet client's pace, and how many requests of a kind it makes.
const PACE: Duration = Duration::from_millis(5);
const REQUESTS: u64 = 800;

pub(super) async fn measure(workspace: &Workspace, report: &mut Report, pods: u64) -> Result<()> {
    workspace.allow(&[QUIET, NOISY]).await?;
    let alone = apart(workspace, pods).await?;
    let over = Arc::new(AtomicBool::new(false));
    let mut listers = JoinSet::new();
    for _ in 0..LISTERS {
        let (mut connection, over) = (Connection::open(&workspace.target).await?, Arc::clone(&over));
        let call = Call::get(workspace.collection("pods")).on_behalf_of(NOISY);
        listers.spawn(async move {
            let mut lists = 0u64;
            while !over.load(Ordering::Relaxed) {
                connection.send(&call).await?;
                lists += 1;
            }
            anyhow::Ok(lists)
        });
    }
    let began = Instant::now();
    let beside = apart(workspace, pods).await;
    over.store(true, Ordering::Relaxed);
    let elapsed = began.elapsed().as_secs_f64();
    let mut lists = 0;
    while let Some(done) = listers.join_next().await {
        lists += done??;
    }
    let beside = beside?;
    for (what, alone, beside) in [("get", &alone[0], &beside[0]), ("merge-patch", &alone[1], &beside[1])] {
        report.add(Figure {
            bench: "api",
            what: format!("{what} of a quiet client beside a noisy one"),
            value: milliseconds(percentile(beside, 0.99)),
            unit: "ms p99",
            p50_milliseconds: Some(milliseconds(percentile(beside, 0.5))),
            p99_milliseconds: Some(milliseconds(percentile(beside, 0.99))),
            note: format!(
                "{LISTERS} lists of {pods} pods at a time, {:.0}/s; alone p99 {:.2} ms",
                lists as f64 / elapsed,
                milliseconds(percentile(alone, 0.99))
            ),
            compare: "goal p99 < 20 ms",
            ..Figure::default()
        });
    }
    Ok(())
}

/// The quiet client, on a thread of its own.
async fn apart(workspace: &Workspace, pods: u64) -> Result<[Vec<u32>; 2]> {
    let workspace = workspace.clone();
    let client = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(quiet(&workspace, pods))
    });
    client.await?
}

/// Latencies of gets and of patches, each sorted.
async fn quiet(workspace: &Workspace, pods: u64) -> Result<[Vec<u32>; 2]> {
    let mut connection = Connection::open(&workspace.target).await?;
    let mut latencies = [Vec::new(), Vec::new()];
    let mut due = Instant::now();
    for number in 0..2 * REQUESTS {
        tokio::time::sleep_until(due).await;
        let path = workspace.object("pods", number % pods);
        let call = if number % 2 == 0 { Call::get(path) } else { Call::merge_patch(path, objects::patch(number)) };
        connection.send(&call.on_behalf_of(QUIET)).await?;
        latencies[(number % 2) as usize].push(micros(due.elapsed()));
        due = (due + PACE).max(Instant::now() - PACE);
    }
    latencies.iter_mut().for_each(|latencies| latencies.sort_unstable());
    Ok(latencies)
}
