//! The life of an instance: it competes, looks, keeps, waits for its time or for a warning, and looks again.
//!
//! It has a thread of its own, so that what a look costs can be measured in any process. Invariant: losing the API server
//! or the lease never ends it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use http::HeaderValue;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kedge_client::{
    Client, ConnectError, LeaderConfig, LeaderElector, LeaderError, client_from_kubeconfig, client_from_service,
    client_in_cluster,
};
use kedge_doctor::OWN_EVENTS;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::client::Body;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use crate::keeper::Keeper;
use crate::look::look;
use crate::metrics::{Metrics, serve};
use crate::pace::{Next, Pace};

const LEASE: &str = "kedge-doctor";
/// A warning seldom comes alone.
const GATHER: Duration = Duration::from_millis(500);
/// A watch is asked for anew after so long, in seconds.
const WATCH_SECONDS: u32 = 280;
/// What the doctor's instances may be behind one another: nothing stands still while nobody leads.
const LEASE_DURATION: Duration = Duration::from_secs(60);
const RENEW_DEADLINE: Duration = Duration::from_secs(45);
const RETRY_PERIOD: Duration = Duration::from_secs(15);

/// How the API is reached.
#[derive(Debug, Clone)]
pub enum Access {
    /// As the service account of this pod.
    Pod,
    /// As a kubeconfig says.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// In whose name, where that is another than the file's user.
        user: Option<String>,
    },
}

/// What an instance is told.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// How it reaches the API.
    pub access: Access,
    /// Its name among those that compete; nobody competes where absent.
    pub identity: Option<String>,
    /// Where its Lease and its history are.
    pub namespace: String,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No client.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No lease.
    #[error("nobody can compete")]
    Leader(#[from] LeaderError),
    /// No thread.
    #[error("a thread cannot be started")]
    Thread(#[from] std::io::Error),
}

/// Runs an instance beside the others of this process until `shutdown`; that it cannot start is logged.
///
/// # Errors
/// Where there is no thread for it.
pub fn spawn(options: WatchOptions, shutdown: CancellationToken) -> Result<std::thread::JoinHandle<()>, RunError> {
    let body = move || {
        if let Err(error) = on_this_thread(options, shutdown, Company::Others) {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, source, "the doctor does not look after the cluster");
        }
    };
    Ok(std::thread::Builder::new().name("doctor".to_owned()).spawn(body)?)
}

/// Runs an instance until `shutdown`.
///
/// # Errors
/// Where it cannot start.
pub async fn run_alone(options: WatchOptions, shutdown: CancellationToken) -> Result<(), RunError> {
    let (ended, end) = oneshot::channel();
    let body = move || drop(ended.send(on_this_thread(options, shutdown, Company::None)));
    std::thread::Builder::new().name("doctor".to_owned()).spawn(body)?;
    // A thread that died without a word has panicked, and said so.
    end.await.unwrap_or(Ok(()))
}

/// Who else is in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Company {
    None,
    /// They look after the process' memory themselves.
    Others,
}

fn on_this_thread(options: WatchOptions, shutdown: CancellationToken, company: Company) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(run(options, shutdown, company));
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn run(options: WatchOptions, shutdown: CancellationToken, company: Company) -> Result<(), RunError> {
    let client = connect(&options.access).await?;
    let metrics = Metrics::default();
    if let Some(address) = options.metrics {
        // Who looks without metrics is of more use than nobody.
        if let Err(error) = serve(address, metrics.clone(), shutdown.clone()).await {
            tracing::error!(%address, %error, "the doctor's metrics cannot be served");
        }
    }
    let instance = Instance { client, namespace: options.namespace.clone(), metrics, company };
    let Some(identity) = &options.identity else {
        instance.metrics.leads(true);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = instance.work(shutdown.child_token()) => {}
        }
        return Ok(());
    };
    let config = LeaderConfig {
        namespace: options.namespace,
        lease_duration: LEASE_DURATION,
        renew_deadline: RENEW_DEADLINE,
        retry_period: RETRY_PERIOD,
        ..LeaderConfig::new(LEASE, identity)
    };
    let mut elector = LeaderElector::new(instance.client.clone(), config)?;
    while elector.acquire(&shutdown).await {
        instance.metrics.leads(true);
        let working = shutdown.child_token();
        tokio::select! {
            lost = elector.hold(&shutdown) => match lost {
                None => break,
                Some(elapsed) => tracing::warn!(?elapsed, "another doctor may look now: the lease was not renewed"),
            },
            () = instance.work(working.clone()) => {}
        }
        working.cancel();
        instance.metrics.leads(false);
    }
    Ok(())
}

async fn connect(access: &Access) -> Result<Client, RunError> {
    let (path, user) = match access {
        Access::Pod => return Ok(client_in_cluster()?),
        Access::Kubeconfig { path, user } => (path, user),
    };
    let client = client_from_kubeconfig(path).await?;
    let Some(user) = user.as_ref().and_then(|user| HeaderValue::from_str(user).ok()) else { return Ok(client) };
    let in_the_name_of = move |mut request: http::Request<Body>| {
        request.headers_mut().insert("impersonate-user", user.clone());
        let client = client.clone();
        async move { client.send(request).await }
    };
    Ok(client_from_service(service_fn(in_the_name_of)))
}

struct Instance {
    client: Client,
    namespace: String,
    metrics: Metrics,
    company: Company,
}

impl Instance {
    /// Looks until it is dropped.
    async fn work(&self, shutdown: CancellationToken) {
        let mut keeper = Keeper::new(&self.client, &self.namespace, shutdown);
        let start = Instant::now();
        let mut pace = Pace::new(Duration::ZERO);
        loop {
            let since = self.head().await;
            let look = look(&self.client).await;
            let now = Timestamp::now();
            let has_findings = match &look.diagnosis {
                Some(diagnosis) => {
                    self.metrics.looked(diagnosis, now, look.took, look.processor);
                    if let Err(error) = keeper.keep(diagnosis, now).await {
                        tracing::warn!(%error, "what the doctor found could not be kept");
                    }
                    !diagnosis.causes.is_empty()
                }
                None => {
                    self.metrics.failed();
                    tracing::debug!("nobody answers the doctor");
                    true
                }
            };
            drop(look.diagnosis);
            self.rest();
            let next = pace.spend(start.elapsed(), look.processor, has_findings);
            self.wait(start, next, since).await;
        }
    }

    /// Gives back what the look took: the rules' code is run for milliseconds, and is most of what would stay in memory.
    fn rest(&self) {
        kedge_memory::release_heap();
        if self.company == Company::None {
            kedge_memory::release_code();
        }
    }

    /// Where a watch of the cluster's warnings begins.
    async fn head(&self) -> Option<String> {
        let events: Api<Event> = Api::all(self.client.clone());
        let list = events.list_metadata(&ListParams::default().limit(1)).await.ok()?;
        list.metadata.resource_version
    }

    /// Until it is time for the next look: at once where something has been complained of, but not before it may be.
    async fn wait(&self, start: Instant, next: Next, since: Option<String>) {
        tokio::time::sleep_until(start + next.earliest).await;
        let Some(since) = since else { return tokio::time::sleep_until(start + next.latest).await };
        let latest = start + next.latest;
        tokio::select! {
            () = tokio::time::sleep_until(latest) => {}
            () = self.warning(&since) => tokio::time::sleep_until(latest.min(Instant::now() + GATHER)).await,
        }
    }

    /// Until somebody else complains. Where warnings cannot be watched, nothing is heard.
    async fn warning(&self, since: &str) {
        let events: Api<Event> = Api::all(self.client.clone());
        let params = WatchParams::default().fields("type=Warning").timeout(WATCH_SECONDS);
        if let Ok(stream) = events.watch(&params, since).await {
            let mut stream = stream.boxed();
            while let Ok(Some(change)) = stream.try_next().await {
                if is_complaint(&change) {
                    return;
                }
            }
        }
        std::future::pending().await
    }
}

/// Whether an event is new and somebody else's; that too much has happened since is a reason as well.
fn is_complaint(change: &WatchEvent<Event>) -> bool {
    match change {
        WatchEvent::Added(event) | WatchEvent::Modified(event) => {
            event.source.as_ref().and_then(|source| source.component.as_deref()) != Some(OWN_EVENTS)
        }
        WatchEvent::Error(_) => true,
        WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::EventSource;

    #[test]
    fn nobody_wakes_himself() {
        let of = |component: &str| {
            let source = EventSource { component: Some(component.to_owned()), host: None };
            Event { source: Some(source), ..Event::default() }
        };
        assert!(!is_complaint(&WatchEvent::Added(of(OWN_EVENTS))));
        assert!(is_complaint(&WatchEvent::Modified(of("kubelet"))));
        assert!(!is_complaint(&WatchEvent::Deleted(of("kubelet"))));
    }
}
