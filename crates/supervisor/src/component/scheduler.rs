//! `kube-scheduler`: the scheduler as a process of its own.

use std::path::PathBuf;

use kedge_client::Informers;
use tokio_util::sync::CancellationToken;

use super::{HealthOptions, LeaderOptions, client, failed, health, surroundings};
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
    let client = client(options.kubeconfig.as_deref()).await?;
    let (clock, board) = surroundings();
    health::serve(NAME, &options.health, board.clone(), shutdown.clone()).await?;
    let config =
        kedge_scheduler::Config { leader_election: options.leader.config()?, ..kedge_scheduler::Config::default() };
    let deps = kedge_scheduler::Deps {
        informers: Informers::new(client.clone(), shutdown.clone()),
        client,
        status: board.component(NAME),
        clock,
    };
    tokio::spawn(give_memory_back(shutdown.clone()));
    kedge_scheduler::run(config, deps, shutdown).await.map_err(|error| failed(NAME, &error))
}
