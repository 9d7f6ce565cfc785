//! Leader election over a Lease, for components of which several may run and one may work.
//!
//! Losing the lease never ends the process: the elector says so, with the latency it measured, and competes again. Where
//! requests are slow it asks for more time, within bounds. Invariants: a term ends the renew deadline after the last
//! renewal was sent, whatever a request is waiting for; that is before anybody else may take the lease over.

mod fence;
mod patience;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kedge_meta::{Clock, SystemClock};
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::component_metrics::LeaseMetrics;
pub use fence::Fence;
use patience::Patience;

/// Who competes for which Lease, and how patiently. The defaults of the durations are upstream's 15/10/2 s.
#[derive(Debug, Clone)]
pub struct LeaderConfig {
    /// Namespace of the Lease, `kube-system` as a rule.
    pub namespace: String,
    /// Name of the Lease, such as `kube-scheduler`.
    pub name: String,
    /// Unique name of this competitor: host name, `_`, and a uuid.
    pub identity: String,
    /// How long others wait before they take over.
    pub lease_duration: Duration,
    /// How long a leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// The pause between attempts.
    pub retry_period: Duration,
    /// To how much the lease's duration may grow while requests are slow, and the renew deadline with it; no longer than
    /// `lease_duration` for not at all.
    pub widest_lease_duration: Duration,
}

/// The default of [`LeaderConfig::widest_lease_duration`].
pub const WIDEST_LEASE: Duration = Duration::from_secs(60);

impl LeaderConfig {
    /// A competitor for a Lease in `kube-system`, with upstream's durations.
    pub fn new(name: &str, identity: &str) -> Self {
        Self {
            namespace: "kube-system".to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            widest_lease_duration: WIDEST_LEASE,
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LeaderError {
    /// Others would take over while the leader still renews.
    #[error("leaseDuration must be greater than renewDeadline")]
    LeaseDuration,
    /// The leader would give up before it retries.
    #[error("renewDeadline must be greater than retryPeriod*JitterFactor")]
    RenewDeadline,
}

/// How a term ended that was not meant to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Missed {
    silent_for: Duration,
    deadline: Duration,
}

/// Competes for one Lease.
pub struct LeaderElector {
    config: LeaderConfig,
    leases: Api<Lease>,
    /// The record as it was first seen.
    observed: Option<(LeaseSpec, Instant)>,
    /// The Lease as it was written last.
    held: Option<Lease>,
    /// When the renewal that counts was sent, and how long it is good for.
    renewed: Option<(Instant, Duration)>,
    slowest: Duration,
    patience: Patience,
    fence: Fence,
    clock: Arc<dyn Clock>,
    metrics: Arc<LeaseMetrics>,
}

impl LeaderElector {
    /// Checks the configuration.
    pub fn new(client: Client, config: LeaderConfig) -> Result<Self, LeaderError> {
        if config.lease_duration <= config.renew_deadline {
            return Err(LeaderError::LeaseDuration);
        }
        if config.renew_deadline <= config.retry_period.mul_f64(1.2) {
            return Err(LeaderError::RenewDeadline);
        }
        let leases = Api::namespaced(client, &config.namespace);
        let patience = Patience::new(config.lease_duration, config.renew_deadline, config.widest_lease_duration);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Ok(Self {
            config,
            leases,
            observed: None,
            held: None,
            renewed: None,
            slowest: Duration::ZERO,
            patience,
            fence: Fence::new(clock.clone()),
            clock,
            metrics: Arc::default(),
        })
    }

    /// Says there whether the Lease is held, and how renewals go.
    pub fn counted(mut self, metrics: &Arc<LeaseMetrics>) -> Self {
        metrics.holds(&self.config.name, false);
        self.metrics = metrics.clone();
        self
    }

    /// Another clock than the machine's.
    pub fn clocked(mut self, clock: Arc<dyn Clock>) -> Self {
        self.fence = Fence::new(clock.clone());
        self.clock = clock;
        self
    }

    /// What keeps others of this process from acting while the Lease is not held.
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Waits until this competitor holds the Lease; `false` where `shutdown` came first.
    pub async fn acquire(&mut self, shutdown: &CancellationToken) -> bool {
        loop {
            let patience = self.config.renew_deadline.mul_f64(self.patience.factor());
            let attempt = tokio::select! {
                () = shutdown.cancelled() => return false,
                attempt = self.attempt(patience) => attempt,
            };
            if attempt == Attempt::Held {
                self.slowest = Duration::ZERO;
                self.metrics.holds(&self.config.name, true);
                return true;
            }
            let ours = self.observed.as_ref().is_some_and(|(spec, _)| self.is_ours(spec));
            let pause = match attempt {
                // The API server is away, and work stands still until it is back.
                Attempt::Failed if ours => self.config.retry_period.min(Duration::from_millis(500)),
                _ => self.config.retry_period,
            };
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Renews the Lease until that fails for longer than the renew deadline (returns the time since the last success)
    /// or `shutdown` comes (gives the Lease back and returns `None`).
    pub async fn hold(&mut self, shutdown: &CancellationToken) -> Option<Duration> {
        loop {
            let (since, term) = self.renewed.unwrap_or((Instant::now(), Duration::ZERO));
            let deadline = since + term;
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.lose();
                    self.release().await;
                    return None;
                }
                () = tokio::time::sleep_until(deadline) => {
                    return Some(self.missed(Missed { silent_for: since.elapsed(), deadline: term }));
                }
                () = self.renew_in_a_while(deadline) => {}
            }
        }
    }

    async fn renew_in_a_while(&mut self, deadline: Instant) {
        tokio::time::sleep(self.config.retry_period).await;
        let left = deadline.saturating_duration_since(Instant::now());
        let before = Instant::now();
        let attempt = self.attempt(left).await;
        let took = before.elapsed();
        self.slowest = if attempt == Attempt::Held { took } else { self.slowest.max(took) };
        match attempt {
            Attempt::Held => self.metrics.renewed(&self.config.name, took),
            Attempt::Taken | Attempt::Failed => self.metrics.failed(&self.config.name),
        }
    }

    fn lose(&mut self) {
        self.fence.close();
        self.renewed = None;
        self.metrics.holds(&self.config.name, false);
    }

    fn missed(&mut self, missed: Missed) -> Duration {
        // What it waited for when the deadline came is the least that it takes.
        self.observe(self.slowest.max(missed.silent_for.saturating_sub(self.config.retry_period)));
        self.lose();
        self.metrics.missed(&self.config.name);
        tracing::warn!(
            lease = self.config.name,
            silent_for = ?missed.silent_for,
            renew_deadline = ?missed.deadline,
            slowest_request = ?self.slowest,
            "the renew deadline of a lease was missed"
        );
        self.slowest = Duration::ZERO;
        missed.silent_for
    }

    fn observe(&mut self, took: Duration) {
        if !self.patience.observe(took) {
            return;
        }
        let factor = self.patience.factor();
        self.metrics.widened(&self.config.name, factor);
        tracing::info!(
            lease = self.config.name,
            request = ?took,
            lease_duration = ?self.config.lease_duration.mul_f64(factor),
            renew_deadline = ?self.config.renew_deadline.mul_f64(factor),
            "the durations of leader election follow the API server's latency"
        );
    }

    async fn attempt(&mut self, patience: Duration) -> Attempt {
        let before = self.fence.now();
        match tokio::time::timeout(patience, self.try_take()).await {
            Ok(Ok(Some(term))) => {
                // What was written is good from when it was sent, not from when the answer came.
                let (sent, written) = term;
                self.renewed = Some((sent.0, written));
                self.fence.open(sent, written);
                Attempt::Held
            }
            Ok(Ok(None)) => Attempt::Taken,
            Ok(Err(error)) => {
                tracing::debug!(lease = self.config.name, %error, "failed to acquire or renew the lease");
                self.held = None;
                Attempt::Failed
            }
            Err(_) => {
                self.observe(before.0.elapsed());
                self.held = None;
                Attempt::Failed
            }
        }
    }

    /// When the record was sent by which this competitor leads, and for how long; `None` where another one does.
    async fn try_take(&mut self) -> Result<Option<Sent>, kube::Error> {
        // As long as nobody else writes the Lease, one request renews it.
        if let Some(lease) = self.held.take() {
            let spec = lease.spec.clone().unwrap_or_default();
            if let Some(sent) = self.write(lease, &spec).await? {
                return Ok(Some(sent));
            }
            self.metrics.slow_path(&self.config.name);
        }
        let before = Instant::now();
        let found = self.leases.get_opt(&self.config.name).await?;
        self.observe(before.elapsed());
        let Some(lease) = found else {
            let metadata = ObjectMeta { name: Some(self.config.name.clone()), ..ObjectMeta::default() };
            return self.write(Lease { metadata, spec: None }, &LeaseSpec::default()).await;
        };
        let spec = lease.spec.clone().unwrap_or_default();
        match self.may_take(&spec) {
            true => self.write(lease, &spec).await,
            false => Ok(None),
        }
    }

    fn is_ours(&self, spec: &LeaseSpec) -> bool {
        spec.holder_identity.as_deref() == Some(&self.config.identity)
    }

    /// Whether the record lets this competitor lead: its own, nobody's, or one that has not changed for as long as it says.
    fn may_take(&mut self, spec: &LeaseSpec) -> bool {
        match &self.observed {
            Some((seen, _)) if seen == spec => {}
            _ => self.observed = Some((spec.clone(), Instant::now())),
        }
        let own = self.config.lease_duration;
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(own, Duration::from_secs).max(Duration::from_secs(1));
        let expired = self.observed.as_ref().is_some_and(|(_, since)| since.elapsed() > duration);
        self.is_ours(spec) || spec.holder_identity.as_deref().unwrap_or_default().is_empty() || expired
    }

    async fn write(&mut self, mut lease: Lease, before: &LeaseSpec) -> Result<Option<Sent>, kube::Error> {
        let factor = self.patience.factor();
        let spec = self.record(before, self.config.lease_duration.mul_f64(factor));
        lease.spec = Some(spec);
        let sent = self.fence.now();
        let is_new = lease.metadata.resource_version.is_none();
        let written = match is_new {
            true => self.leases.create(&PostParams::default(), &lease).await,
            false => self.leases.replace(&self.config.name, &PostParams::default(), &lease).await,
        };
        self.observe(sent.0.elapsed());
        match written {
            Ok(lease) => {
                self.observed = lease.spec.clone().map(|spec| (spec, Instant::now()));
                self.held = Some(lease);
                Ok(Some((sent, self.config.renew_deadline.mul_f64(factor))))
            }
            // Somebody else was faster, which is no failure.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn record(&self, before: &LeaseSpec, duration: Duration) -> LeaseSpec {
        let now = MicroTime(self.clock.now());
        let ours = self.is_ours(before);
        let transitions = before.lease_transitions.unwrap_or_default();
        // Whole seconds, never fewer than what this competitor counts on.
        let seconds = duration.as_secs_f64().ceil() as i64;
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
            acquire_time: if ours { before.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
            ..before.clone()
        }
    }

    /// Best effort, and not for long: without it, the next leader waits for the lease to expire.
    async fn release(&mut self) {
        let patience = self.config.renew_deadline.mul_f64(self.patience.factor());
        if tokio::time::timeout(patience, self.give_back()).await.is_err() {
            tracing::info!(lease = self.config.name, "the lease could not be given back in time; it will expire");
        }
    }

    async fn give_back(&mut self) {
        let Ok(Some(mut lease)) = self.leases.get_opt(&self.config.name).await else { return };
        let Some(spec) = lease.spec.as_mut() else { return };
        if spec.holder_identity.as_deref() != Some(&self.config.identity) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        let _ = self.leases.replace(&self.config.name, &PostParams::default(), &lease).await;
    }
}

/// When a record was sent, by both clocks, and for how long it lets its holder lead.
type Sent = ((Instant, jiff::Timestamp), Duration);

/// What an attempt to take or renew the Lease came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Held,
    /// Another one holds it.
    Taken,
    /// The API server did not do it in time.
    Failed,
}

#[cfg(test)]
mod tests;
