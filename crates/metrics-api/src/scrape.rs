//! Reads `/metrics/resource` of every node, again and again.
//!
//! Invariant: a node that does not answer holds up no other, and what it last said is forgotten only when the node is.

use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kedge_client::Client;
use kedge_meta::{Clock, ComponentState, ComponentStatus};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::answer::MetricsService;
use crate::exposition::parse;

/// How often, and how patiently.
#[derive(Debug, Clone)]
pub struct Config {
    /// Between two scrapes.
    pub period: Duration,
    /// A node has so long to answer.
    pub patience: Duration,
    /// Nodes that are read at a time.
    pub at_once: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { period: Duration::from_secs(15), patience: Duration::from_secs(10), at_once: 16 }
    }
}

/// What the scraper works with.
pub struct Deps {
    /// The API, as a user who may read `nodes/proxy`.
    pub client: Client,
    /// What it scrapes for.
    pub service: MetricsService,
    /// Where it reports.
    pub status: ComponentStatus,
    /// The time.
    pub clock: std::sync::Arc<dyn Clock>,
}

/// Scrapes until `shutdown`.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(config.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = round(&config, &deps) => {}
        }
    }
    deps.status.set(ComponentState::Stopped, "", "");
}

async fn round(config: &Config, deps: &Deps) {
    let names = deps.service.node_names();
    deps.service.points.write().retain(|node| names.iter().any(|name| name == node));
    let scrapes: Vec<_> = names.iter().cloned().map(|name| scrape(config, deps, name)).collect();
    let mut scrapes = futures::stream::iter(scrapes).buffer_unordered(config.at_once);
    let mut silent = Vec::new();
    while let Some((name, result)) = scrapes.next().await {
        match result {
            Ok((text, now)) => deps.service.points.write().take(&name, &parse(&text, now)),
            Err(why) => silent.push(format!("{name}: {why}")),
        }
    }
    if silent.is_empty() {
        deps.status.running();
    } else {
        silent.sort();
        let message = format!("no metrics of {} of {} nodes ({})", silent.len(), names.len(), silent.join("; "));
        deps.status.degraded("NodesSilent", message);
    }
}

async fn scrape(config: &Config, deps: &Deps, node: String) -> (String, Result<(String, Timestamp), String>) {
    let answer = read(config, deps, &node).await;
    (node, answer)
}

async fn read(config: &Config, deps: &Deps, node: &str) -> Result<(String, Timestamp), String> {
    let path = format!("/api/v1/nodes/{node}/proxy/metrics/resource");
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(config.patience, deps.client.request_text(request)).await;
    let text = answer.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
    Ok((text, deps.clock.now()))
}
