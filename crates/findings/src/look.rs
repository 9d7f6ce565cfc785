//! One look: what it found, and what it cost.

use std::time::Duration;

use kedge_client::Client;
use kedge_diagnosis::{Diagnosis, Fact, diagnose};
use kedge_doctor::gather_cluster;
use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// What a person would call the server by.
const SERVER: &str = "the API server";

/// A look that ended.
pub(crate) struct Look {
    /// What is wrong; nothing where nobody answered.
    pub(crate) diagnosis: Option<Diagnosis>,
    /// From its start to its end.
    pub(crate) took: Duration,
    /// Of the processor, on this thread.
    pub(crate) processor: Duration,
}

/// Looks, on a thread on which nothing else works meanwhile.
pub(crate) async fn look(client: &Client) -> Look {
    let (began, before) = (Instant::now(), processor_time());
    let evidence = gather_cluster(client, SERVER).await;
    let is_blind = evidence.items.is_empty()
        || evidence
            .items
            .iter()
            .any(|item| matches!(&item.fact, Fact::Call { error: Some(_), target } if target == SERVER));
    let diagnosis = (!is_blind).then(|| diagnose(&evidence));
    Look { diagnosis, took: began.elapsed(), processor: processor_time().saturating_sub(before) }
}

/// What this thread has used of a processor.
fn processor_time() -> Duration {
    // Without the clock, a look counts as free; its duration is bounded all the same.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}
