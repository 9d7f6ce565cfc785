//! The scheduler from outside: what it is told, what it works with, and how it competes with others.

use std::sync::Arc;

use kedge_client::{Client, Informers, LeaderConfig, LeaderElector, LeaderError};
use kedge_meta::{Clock, ComponentStatus};
use tokio_util::sync::CancellationToken;

use crate::configuration::{ConfigurationError, KubeSchedulerConfiguration};
use crate::extender::{Extender, ExtenderError};
use crate::metrics::SchedulerMetrics;
use crate::profile::profiles;
use crate::scheduler::Scheduler;

const COMPONENT: &str = "kube-scheduler";

/// What the scheduler is told.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Upstream's configuration file; its parts about leader election and the API's address are not looked at here.
    pub configuration: KubeSchedulerConfiguration,
    /// Where several schedulers may run: the lease for which they compete.
    pub leader_election: Option<LeaderConfig>,
}

/// What the scheduler works with.
pub struct Deps {
    /// The API, as `system:kube-scheduler`.
    pub client: Client,
    /// Shared caches.
    pub informers: Informers,
    /// Where it reports.
    pub status: ComponentStatus,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where is counted what it does.
    pub metrics: Arc<SchedulerMetrics>,
}

/// Why the scheduler can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The leader election's durations make no sense.
    #[error("the leader election is misconfigured")]
    Leader(#[from] LeaderError),
    /// Its profiles are no profiles.
    #[error("the scheduler is misconfigured")]
    Configuration(#[from] ConfigurationError),
    /// An extender can't be asked.
    #[error("the scheduler is misconfigured")]
    Extender(#[from] ExtenderError),
}

/// Schedules until `shutdown`. Losing the API or the lease never ends it: it stops deciding, says so, and goes on later.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), Error> {
    let mut elector = match &config.leader_election {
        Some(leader) => {
            Some(LeaderElector::new(deps.client.clone(), leader.clone())?.counted(&deps.metrics.component.leases))
        }
        None => None,
    };
    let Some(elector) = &mut elector else {
        return schedule(&config, &deps, shutdown).await;
    };
    let deps = fenced(deps, elector);
    while !shutdown.is_cancelled() {
        deps.status.set(kedge_meta::ComponentState::Starting, "WaitingForLease", "another scheduler is active");
        if !elector.acquire(&shutdown).await {
            break;
        }
        tracing::info!(component = COMPONENT, "became the leader");
        let term = shutdown.child_token();
        let work = schedule(&config, &deps, term.clone());
        let (ended, lost) = tokio::join!(work, async {
            let lost = elector.hold(&shutdown).await;
            term.cancel();
            lost
        });
        ended?;
        if let Some(after) = lost {
            let text = format!("the lease could not be renewed for {:.1} s; competing again", after.as_secs_f64());
            tracing::warn!(component = COMPONENT, text);
            deps.status.degraded("LeaseLost", text);
        }
    }
    Ok(())
}

/// The same, but nothing is written unless the lease is held: what was decided before the process was stopped must not
/// leave when somebody else leads.
fn fenced(deps: Deps, elector: &LeaderElector) -> Deps {
    Deps { client: elector.fence().guard(deps.client), ..deps }
}

async fn schedule(config: &Config, deps: &Deps, shutdown: CancellationToken) -> Result<(), Error> {
    let profiles = profiles(&config.configuration)?;
    let mut extenders = Vec::new();
    for said in &config.configuration.extenders {
        extenders.push(Extender::new(said).await?);
    }
    if let Some(scheduler) = Scheduler::new(config, deps, profiles, extenders, &shutdown).await {
        scheduler.work(shutdown).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kedge_client::client_from_service;
    use kedge_meta::{StatusBoard, SystemClock};
    use kube::api::{Api, DeleteParams};
    use kube::client::Body;

    use super::*;

    #[tokio::test]
    async fn nothing_is_written_without_the_lease() {
        let client = client_from_service(tower::service_fn(|_: http::Request<Body>| async {
            http::Response::builder().body(Body::from(br#"{"metadata": {"name": "p"}}"#.to_vec()))
        }));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let elector = LeaderElector::new(client.clone(), LeaderConfig::new("kube-scheduler", "me")).unwrap();
        let deps = Deps {
            informers: Informers::new(client.clone(), CancellationToken::new()),
            status: StatusBoard::new(clock.clone()).component("kube-scheduler"),
            metrics: Arc::default(),
            client,
            clock,
        };
        let unfenced = Api::<Pod>::namespaced(deps.client.clone(), "d");
        assert!(unfenced.delete("p", &DeleteParams::default()).await.is_ok());
        let pods = Api::<Pod>::namespaced(fenced(deps, &elector).client, "d");
        assert!(pods.get("p").await.is_ok(), "reading changes nothing");
        let error = pods.delete("p", &DeleteParams::default()).await.unwrap_err();
        assert!(format!("{error:?}").contains("Fenced"), "{error:?}");
    }
}
