//! `kube-scheduler`: the scheduler as a process of its own.

use std::path::PathBuf;
use std::sync::Arc;

use kedge_client::Informers;
use kedge_scheduler::SchedulerMetrics;
use tokio_util::sync::CancellationToken;

use super::{HealthOptions, LeaderOptions, counted_client, failed, figures, health, surroundings};
use crate::error::Error;
use crate::memory::give_memory_back;

const NAME: &str = "kube-scheduler";

/// What the scheduler was asked for.
#[derive(Debug, Clone)]
pub struct SchedulerOptions {
    /// How to reach the API server, and as whom.
    pub kubeconfig: Option<PathBuf>,
    /// How it competes with others.
    pub leader: LeaderOptions,
    /// Where it says how it is.
    pub health: HealthOptions,
}

/// Schedules until `shutdown`.
pub async fn run_scheduler(options: SchedulerOptions, shutdown: CancellationToken) -> Result<(), Error> {
    let metrics = Arc::<SchedulerMetrics>::default();
    let client = counted_client(options.kubeconfig.as_deref(), &metrics.component.requests).await?;
    let (clock, board) = surroundings();
    let shown = metrics.clone();
    let figures = figures(move |text| shown.write(text));
    health::serve(NAME, &options.health, board.clone(), figures, shutdown.clone()).await?;
    let config =
        kedge_scheduler::Config { leader_election: options.leader.config()?, ..kedge_scheduler::Config::default() };
    let deps = kedge_scheduler::Deps {
        informers: Informers::new(client.clone(), shutdown.clone()),
        client,
        status: board.component(NAME),
        clock,
        metrics,
    };
    tokio::spawn(give_memory_back(shutdown.clone()));
    kedge_scheduler::run(config, deps, shutdown).await.map_err(|error| failed(NAME, &error))
}
