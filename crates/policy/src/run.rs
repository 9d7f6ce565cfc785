//! The loop: follow the API, collect changes for an instant, apply them in one transaction.
//!
//! Invariant: without the API the rules stay as they are; a cluster without policies has no table, no informer of pods,
//! and no cost; the first write happens only when everything is known, so that a restart never opens what was closed.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kedge_client::Backoff;
use kedge_netfilter::{Family, Nft, NftError};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Deps, Error};
use crate::gate::{Admission, Gate, GateKeeper};
use crate::skeleton::TABLE;
use crate::worker::Worker;

/// Enforces policies until `shutdown`. The rules stay when it ends.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), Error> {
    if config.node_name.is_empty() {
        return Err(Error::Config("the node has no name".to_owned()));
    }
    if !config.ipv4 && !config.ipv6 {
        return Err(Error::Config("pods have addresses of no family".to_owned()));
    }
    let mut deps = deps;
    let mut gate = deps.gate.take().unwrap_or_else(|| Gate::new().1);
    let waiting = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        waiting = first_policy(&deps, &mut gate) => waiting,
    };
    let mut worker = Worker::new(&config);
    waiting.iter().for_each(|admission| worker.note_admission(admission));
    Loop { config, deps, worker, gate, waiting }.follow(shutdown).await;
    Ok(())
}

/// Removes the tables.
pub async fn teardown() -> Result<(), Error> {
    let nft = Nft::default();
    for family in [Family::Ip, Family::Ip6] {
        nft.delete_table(family, TABLE).await?;
    }
    Ok(())
}

/// Returns once there is a policy, with the pods that wait for its rules. Until then nothing may be isolated by a table of
/// an earlier process.
///
/// Pods that start meanwhile are admitted at once, and remembered.
async fn first_policy(deps: &Deps, gate: &mut GateKeeper) -> Vec<Admission> {
    let mut waiting = Vec::new();
    deps.policies.synced().await;
    let mut changes = deps.policies.subscribe();
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    while deps.policies.is_empty() {
        match teardown().await {
            Ok(()) => {
                deps.status.running();
                deps.status.heartbeat(None);
                let mut nap = std::pin::pin!(tokio::time::sleep(Duration::from_secs(30)));
                loop {
                    tokio::select! {
                        _ = changes.next() => break,
                        () = &mut nap => break,
                        admission = gate.next() => {
                            if !deps.policies.is_empty() {
                                waiting.push(admission);
                                break;
                            }
                            // Who asked may have gone.
                            let _ = admission.done.send(());
                        }
                    }
                }
            }
            Err(error) => {
                deps.status.degraded("PolicyRulesFailed", error.to_string());
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
    waiting
}

struct Loop {
    config: Config,
    deps: Deps,
    worker: Worker,
    gate: GateKeeper,
    /// Pods whose rules are not in force yet.
    waiting: Vec<Admission>,
}

impl Loop {
    async fn follow(mut self, shutdown: CancellationToken) {
        let (all_pods, all_namespaces) = (self.deps.informers.all::<Pod>(), self.deps.informers.all::<Namespace>());
        let mut policies = self.deps.policies.subscribe();
        let mut pods = all_pods.subscribe();
        let mut namespaces = all_namespaces.subscribe();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = async { tokio::join!(all_pods.synced(), all_namespaces.synced()); } => {}
        }
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut rounds = interval(self.config.sync_period);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut apply_at = Some(Instant::now());
        loop {
            while let Some(change) = namespaces.try_next() {
                self.worker.note_namespace(&change);
            }
            while let Some(change) = pods.try_next() {
                self.worker.note_pod(&change, &self.gate);
            }
            while let Some(change) = policies.try_next() {
                self.worker.note_policy(&change);
            }
            if apply_at.is_some_and(|at| at <= Instant::now()) {
                apply_at = self.apply(&mut backoff).await;
                continue;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                change = policies.next() => self.worker.note_policy(&change),
                change = pods.next() => self.worker.note_pod(&change, &self.gate),
                admission = self.gate.next() => {
                    self.worker.note_admission(&admission);
                    self.waiting.push(admission);
                    // A pod waits: no time to collect changes.
                    apply_at = Some(Instant::now());
                }
                change = namespaces.next() => self.worker.note_namespace(&change),
                _ = rounds.tick() => self.look_after().await,
                () = until(apply_at) => {}
            }
            if self.worker.is_dirty() && apply_at.is_none() {
                apply_at = Some(Instant::now() + self.config.min_sync_period);
            }
        }
    }

    /// Applies what is dirty; says when to try again after a failure.
    async fn apply(&mut self, backoff: &mut Backoff) -> Option<Instant> {
        let start = Instant::now();
        match self.worker.sync().await {
            Ok(()) => {
                backoff.reset();
                for admission in self.waiting.drain(..) {
                    // Who asked may have gone.
                    let _ = admission.done.send(());
                }
                self.deps.status.running();
                self.deps.status.heartbeat(Some(start.elapsed()));
                None
            }
            Err(error) => {
                self.report(&error);
                Some(Instant::now() + backoff.next_delay())
            }
        }
    }

    async fn look_after(&mut self) {
        match self.worker.look_after().await {
            Ok(()) if !self.worker.is_dirty() => {
                self.deps.status.running();
                self.deps.status.heartbeat(None);
            }
            Ok(()) => {}
            Err(error) => self.report(&error),
        }
    }

    fn report(&self, error: &NftError) {
        tracing::warn!(error = error as &dyn std::error::Error, "the rules for network policies can't be changed");
        let message = format!("the rules for network policies can't be changed: {error}");
        self.deps.status.degraded(error.reason(), message);
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
