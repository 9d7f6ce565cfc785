//! The competition for a lease, in upstream's way: who cannot renew it in time has lost it, and ends.
//!
//! Invariant: no attempt waits longer than half of the renew deadline, as in the library that such managers are made with.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kedge_client::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::decision::{Decision, Record, check, decide};
use crate::{Error, lines};

/// Who competes for which lease, and how patiently.
#[derive(Debug, Clone)]
pub struct ElectionOptions {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Unique name of this process.
    pub identity: String,
    /// How long others wait before they take over.
    pub lease_duration: Duration,
    /// How long a leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// The pause between attempts.
    pub retry_period: Duration,
}

/// Competes, and holds the lease until it is lost or `shutdown` comes.
pub(crate) async fn lead(
    client: &Client,
    options: &ElectionOptions,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    check(options.lease_duration, options.renew_deadline, options.retry_period).map_err(Error::Election)?;
    let leases = Api::namespaced(client.clone(), &options.namespace);
    let mut competitor = Competitor { leases, options, seen: None };
    let work = async {
        competitor.acquire().await;
        competitor.hold().await;
    };
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        () = work => Err(Error::LeaseLost),
    }
}

struct Competitor<'a> {
    leases: Api<Lease>,
    options: &'a ElectionOptions,
    seen: Option<(Record, Instant)>,
}

impl Competitor<'_> {
    async fn acquire(&mut self) {
        let lock = self.lock();
        lines::information("leaderelection.go:248", &format!("attempting to acquire leader lease {lock}..."));
        while !self.attempt().await {
            sleep(self.options.retry_period).await;
        }
        lines::information("leaderelection.go:258", &format!("successfully acquired lease {lock}"));
    }

    /// Returns once the lease could not be renewed for the whole of the deadline.
    async fn hold(&mut self) {
        loop {
            sleep(self.options.retry_period).await;
            let deadline = Instant::now() + self.options.renew_deadline;
            let renewed = timeout_at(deadline, async {
                while !self.attempt().await {
                    sleep(self.options.retry_period).await;
                }
            });
            if renewed.await.is_err() {
                let lock = self.lock();
                let text = format!("failed to renew lease {lock}: timed out waiting for the condition");
                return lines::information("leaderelection.go:283", &text);
            }
        }
    }

    async fn attempt(&mut self) -> bool {
        let why = match timeout(self.options.renew_deadline / 2, self.try_take()).await {
            Ok(Ok(held)) => return held,
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => return false,
            Ok(Err(error)) => told(&error),
            Err(_) => "context deadline exceeded".to_owned(),
        };
        let (lock, url) = (self.lock(), self.url());
        let text = format!("error retrieving resource lock {lock}: Get \"{url}\": {why}");
        lines::error("leaderelection.go:330", &text);
        false
    }

    async fn try_take(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.leases.get_opt(&self.options.name).await? else {
            let metadata = ObjectMeta { name: Some(self.options.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(LeaseSpec::default())) };
            return self.leases.create(&PostParams::default(), &lease).await.map(|_| true);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let record = record(&spec);
        let since = match &self.seen {
            Some((seen, since)) if *seen == record => *since,
            _ => Instant::now(),
        };
        self.seen = Some((record.clone(), since));
        if decide(&record, &self.options.identity, since.elapsed()) == Decision::Wait {
            return Ok(false);
        }
        lease.spec = Some(self.spec(spec));
        self.leases.replace(&self.options.name, &PostParams::default(), &lease).await.map(|_| true)
    }

    fn spec(&self, before: LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let is_ours = before.holder_identity.as_deref() == Some(&self.options.identity);
        let transitions = before.lease_transitions.unwrap_or_default() + i32::from(!is_ours);
        LeaseSpec {
            holder_identity: Some(self.options.identity.clone()),
            lease_duration_seconds: i32::try_from(self.options.lease_duration.as_secs()).ok(),
            acquire_time: if is_ours { before.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..before
        }
    }

    fn lock(&self) -> String {
        format!("{}/{}", self.options.namespace, self.options.name)
    }

    fn url(&self) -> String {
        let variable = |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.to_owned());
        let (host, port) =
            (variable("KUBERNETES_SERVICE_HOST", "localhost"), variable("KUBERNETES_SERVICE_PORT", "443"));
        let (namespace, name) = (&self.options.namespace, &self.options.name);
        format!("https://{host}:{port}/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}")
    }
}

fn record(spec: &LeaseSpec) -> Record {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: spec.holder_identity.clone().unwrap_or_default(),
        renewed: spec.renew_time.as_ref().map(|time| time.0.to_string()).unwrap_or_default(),
        lasts: Duration::from_secs(seconds.unwrap_or_default()),
    }
}

/// An error with its causes, in one line.
fn told(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
