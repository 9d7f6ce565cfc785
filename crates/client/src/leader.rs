//! Leader election over a Lease, for components of which several may run and one may work.
//!
//! Losing the lease never ends the process: the elector says so, with the latency it measured, and competes again.

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
}

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

/// Competes for one Lease.
pub struct LeaderElector {
    config: LeaderConfig,
    leases: Api<Lease>,
    observed: Option<(Option<String>, Option<MicroTime>, Instant)>,
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
        Ok(Self { config, leases, observed: None, metrics: Arc::default() })
    }

    /// Says there whether the Lease is held.
    pub fn counted(mut self, metrics: &Arc<LeaseMetrics>) -> Self {
        metrics.holds(&self.config.name, false);
        self.metrics = metrics.clone();
        self
    }

    /// Waits until this competitor holds the Lease; `false` where `shutdown` came first.
    pub async fn acquire(&mut self, shutdown: &CancellationToken) -> bool {
        loop {
            if self.attempt().await {
                self.metrics.holds(&self.config.name, true);
                return true;
            }
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = tokio::time::sleep(self.config.retry_period) => {}
            }
        }
    }

    /// Renews the Lease until that fails for longer than the renew deadline (returns the time since the last success)
    /// or `shutdown` comes (gives the Lease back and returns `None`).
    pub async fn hold(&mut self, shutdown: &CancellationToken) -> Option<Duration> {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.metrics.holds(&self.config.name, false);
                    self.release().await;
                    return None;
                }
                () = tokio::time::sleep(self.config.retry_period) => {}
            }
            if self.attempt().await {
                renewed = Instant::now();
            } else if renewed.elapsed() >= self.config.renew_deadline {
                self.metrics.holds(&self.config.name, false);
                return Some(renewed.elapsed());
            }
        }
    }

    async fn attempt(&mut self) -> bool {
        match tokio::time::timeout(self.config.renew_deadline, self.try_take()).await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => {
                tracing::debug!(lease = self.config.name, %error, "failed to acquire or renew the lease");
                false
            }
            Err(_) => false,
        }
    }

    async fn try_take(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.leases.get_opt(&self.config.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.config.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.record(&LeaseSpec::default())),
            };
            return created(self.leases.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let seen = (spec.holder_identity.clone(), spec.renew_time.clone());
        match &self.observed {
            Some((holder, time, _)) if *holder == seen.0 && *time == seen.1 => {}
            _ => self.observed = Some((seen.0, seen.1, Instant::now())),
        }
        let ours = spec.holder_identity.as_deref() == Some(&self.config.identity);
        let free = spec.holder_identity.as_deref().unwrap_or_default().is_empty();
        let expired = self.observed.as_ref().is_some_and(|(_, _, since)| since.elapsed() > self.config.lease_duration);
        if !ours && !free && !expired {
            return Ok(false);
        }
        lease.spec = Some(self.record(&spec));
        created(self.leases.replace(&self.config.name, &PostParams::default(), &lease).await)
    }

    fn record(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(SystemClock.now());
        let ours = before.holder_identity.as_deref() == Some(&self.config.identity);
        let transitions = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.config.lease_duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: if ours { before.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
            ..before.clone()
        }
    }

    async fn release(&mut self) {
        let Ok(Some(mut lease)) = self.leases.get_opt(&self.config.name).await else { return };
        let Some(spec) = lease.spec.as_mut() else { return };
        if spec.holder_identity.as_deref() != Some(&self.config.identity) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        // Best effort: without it, the next leader waits for the lease to expire.
        let _ = self.leases.replace(&self.config.name, &PostParams::default(), &lease).await;
    }
}

/// A conflict means that somebody else was faster, which is no failure.
fn created(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn impossible_orders_of_durations_are_refused() {
        let service = tower::service_fn(|_| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
        });
        let client = crate::client_from_service(service);
        let check = |lease, renew, retry| {
            let config = LeaderConfig {
                namespace: "kube-system".to_owned(),
                name: "kube-scheduler".to_owned(),
                identity: "a".to_owned(),
                lease_duration: Duration::from_secs(lease),
                renew_deadline: Duration::from_secs(renew),
                retry_period: Duration::from_secs(retry),
            };
            LeaderElector::new(client.clone(), config).err()
        };
        assert_eq!(check(15, 10, 2), None);
        assert_eq!(check(10, 10, 2), Some(LeaderError::LeaseDuration));
        assert_eq!(check(15, 2, 2), Some(LeaderError::RenewDeadline));
    }
}
