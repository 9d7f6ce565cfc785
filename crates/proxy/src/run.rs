//! The loop of the proxy: follow the API, collect changes for an instant, apply them in one transaction.
//!
//! Invariant: without the API the rules stay as they are; the first write happens only when Services and EndpointSlices
//! are completely known, so that a restart never takes away what an earlier process has written.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kedge_client::Backoff;
use kedge_netfilter::{Family, Nft, Sysctls};
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Deps, Error};
use crate::health::HealthServers;
use crate::healthz::{Health, answer};
use crate::skeleton::TABLE;
use crate::worker::Worker;

const ROUTE_LOCALNET: &str = "net.ipv4.conf.all.route_localnet";

/// Runs the proxy until `shutdown`. The rules stay when it ends.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), Error> {
    validate(&config)?;
    let clock = deps.clock.clone();
    let start = Health { last_updated: clock.now(), waiting_since: Some(clock.now()), node_eligible: true };
    let health = Arc::new(tokio::sync::watch::Sender::new(start));
    if let Some(address) = config.healthz_bind_address {
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Healthz { address, source })?;
        let (health, clock) = (health.clone(), clock.clone());
        let reply = move |path: &str| answer(path, &health.borrow(), &clock);
        tokio::spawn(crate::http::serve(listener, shutdown.clone(), reply));
    }
    let is_healthy = {
        let (health, clock) = (health.clone(), clock.clone());
        Arc::new(move || health.borrow().is_healthy(clock.now()))
    };
    // The unspecified address of IPv6 takes connections of IPv4 as well.
    let ipv6 = config.node_ips.iter().any(std::net::IpAddr::is_ipv6);
    let worker = Worker::new(&config, deps.clone(), HealthServers::new(ipv6, is_healthy));
    let switch_problem = set_switches(&config);
    Loop { config, deps, worker, health, switch_problem }.follow(shutdown).await;
    Ok(())
}

/// Removes the proxy's tables and gives the kernel switches their former values.
pub async fn teardown(state_dir: &Path) -> Result<(), Error> {
    let nft = Nft::default();
    for family in [Family::Ip, Family::Ip6] {
        nft.delete_table(family, TABLE).await?;
    }
    Ok(sysctls(state_dir).restore()?)
}

fn validate(config: &Config) -> Result<(), Error> {
    if config.node_name.is_empty() {
        return Err(Error::Config("the node has no name".to_owned()));
    }
    if config.node_ips.is_empty() {
        return Err(Error::Config("the node has no address".to_owned()));
    }
    Ok(())
}

fn sysctls(state_dir: &Path) -> Sysctls {
    Sysctls::new(state_dir.join("proxy-sysctls.json"))
}

/// Sets what node ports on 127.0.0.1 need; says what is missing otherwise.
fn set_switches(config: &Config) -> Option<String> {
    if !config.localhost_node_ports || config.node_ips.iter().all(std::net::IpAddr::is_ipv6) {
        return None;
    }
    let error = sysctls(&config.state_dir).ensure(ROUTE_LOCALNET, "1").err()?;
    tracing::warn!(error = &error as &dyn std::error::Error, "node ports won't answer on 127.0.0.1");
    Some(format!("node ports won't answer on 127.0.0.1: {error}"))
}

struct Loop {
    config: Config,
    deps: Deps,
    worker: Worker,
    health: Arc<tokio::sync::watch::Sender<Health>>,
    switch_problem: Option<String>,
}

impl Loop {
    async fn follow(mut self, shutdown: CancellationToken) {
        let mut services = self.deps.services.subscribe();
        let mut slices = self.deps.endpoint_slices.subscribe();
        let mut nodes = self.deps.nodes.subscribe();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.known() => {}
        }
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut rounds = interval(self.config.sync_period);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut apply_at = Some(Instant::now());
        loop {
            while let Some(change) = services.try_next() {
                self.worker.note_service(&change);
            }
            while let Some(change) = slices.try_next() {
                self.worker.note_slice(&change);
            }
            while let Some(change) = nodes.try_next() {
                self.note_node(&change);
            }
            if apply_at.is_some_and(|at| at <= Instant::now()) {
                apply_at = self.apply(&mut backoff).await;
                continue;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                change = services.next() => self.worker.note_service(&change),
                change = slices.next() => self.worker.note_slice(&change),
                change = nodes.next() => self.note_node(&change),
                _ = rounds.tick() => self.look_after().await,
                () = until(apply_at) => {}
            }
            if self.worker.is_dirty() && apply_at.is_none() {
                apply_at = Some(self.schedule());
            }
        }
    }

    async fn known(&self) {
        self.deps.services.synced().await;
        self.deps.endpoint_slices.synced().await;
    }

    /// Gives further changes an instant to come along.
    fn schedule(&self) -> Instant {
        self.health.send_modify(|health| {
            health.waiting_since.get_or_insert_with(|| self.deps.clock.now());
        });
        Instant::now() + self.config.min_sync_period
    }

    fn note_node(&mut self, change: &kedge_client::Change<k8s_openapi::api::core::v1::Node>) {
        if let Some(eligible) = self.worker.note_node(change) {
            self.health.send_modify(|health| health.node_eligible = eligible);
        }
    }

    /// Applies what is dirty; says when to try again after a failure.
    async fn apply(&mut self, backoff: &mut Backoff) -> Option<Instant> {
        let start = Instant::now();
        match self.worker.sync().await {
            Ok(()) => {
                backoff.reset();
                let now = self.deps.clock.now();
                self.health.send_modify(|health| {
                    health.last_updated = now;
                    health.waiting_since = None;
                });
                self.report_good(Some(start.elapsed()));
                None
            }
            Err(error) => {
                self.report_bad(&error);
                Some(Instant::now() + backoff.next_delay())
            }
        }
    }

    async fn look_after(&mut self) {
        match self.worker.look_after().await {
            Ok(()) if !self.worker.is_dirty() => self.report_good(None),
            Ok(()) => {}
            Err(error) => self.report_bad(&error),
        }
    }

    fn report_good(&self, latency: Option<Duration>) {
        match (&self.switch_problem, self.worker.shortcoming()) {
            (Some(problem), _) => self.deps.status.degraded("RouteLocalnet", problem.clone()),
            (None, Some((reason, message))) => self.deps.status.degraded(reason, message),
            (None, None) => self.deps.status.running(),
        }
        self.deps.status.heartbeat(latency);
    }

    fn report_bad(&self, error: &kedge_netfilter::NftError) {
        tracing::warn!(error = error as &dyn std::error::Error, "the rules for Services can't be changed");
        self.deps.status.degraded(error.reason(), format!("the rules for Services can't be changed: {error}"));
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
