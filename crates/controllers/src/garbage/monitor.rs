//! Watches the metadata of every kind the API serves and keeps the graph in step; finds out about new kinds.
//!
//! Invariant: each kind has one watch, which ends when the kind does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kedge_client::{Backoff, Client, Watched, is_silence};
use kube::Api;
use kube::runtime::watcher::{self, Event};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::discovery::{ApiKind, Metadata, discover};
use crate::metrics::ControllerMetrics;

/// How often kinds are looked for without a reason.
const REDISCOVER: Duration = Duration::from_secs(300);
/// A definition that changes is served a moment later.
const SETTLE: Duration = Duration::from_millis(500);
/// How long the first lists may take before work begins without the slow ones.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a watch saw.
pub(crate) enum Seen {
    There(Arc<ApiKind>, Box<Metadata>),
    Gone(Box<Metadata>),
    /// A complete list is over: objects of the kind with other uids are gone.
    Only(Arc<ApiKind>, HashSet<String>),
}

/// The kinds that are known, by API group and kind.
#[derive(Debug, Default, Clone)]
pub(crate) struct Kinds(Arc<HashMap<(String, String), Arc<ApiKind>>>);

impl Kinds {
    fn new(kinds: &[Arc<ApiKind>]) -> Self {
        let key = |kind: &Arc<ApiKind>| ((kind.resource.group.clone(), kind.resource.kind.clone()), kind.clone());
        Self(Arc::new(kinds.iter().map(key).collect()))
    }

    /// All kinds whose objects may have owners.
    pub(crate) fn collectable(&self) -> Vec<Arc<ApiKind>> {
        self.0.values().filter(|kind| is_collectable(kind)).cloned().collect()
    }

    /// The kind that a reference names, in the version in use.
    pub(crate) fn get(&self, api_version: &str, kind: &str) -> Option<Arc<ApiKind>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.0.get(&(group.to_owned(), kind.to_owned())).cloned()
    }
}

/// Events own nothing and nobody owns them.
fn is_collectable(kind: &ApiKind) -> bool {
    kind.resource.plural != "events" && ["list", "watch", "delete"].iter().all(|verb| kind.supports(verb))
}

/// Starts and ends watches as kinds come and go.
pub(crate) struct Monitor {
    pub(crate) metrics: ControllerMetrics,
    pub(crate) client: Client,
    pub(crate) seen: mpsc::Sender<Seen>,
    pub(crate) kinds: watch::Sender<Kinds>,
    /// Somebody met a kind that is not known, or a definition changed.
    pub(crate) look_again: Arc<Notify>,
    /// Becomes true when the graph is complete enough to act on.
    pub(crate) ready: watch::Sender<bool>,
    pub(crate) shutdown: CancellationToken,
}

/// A running watch.
struct Running {
    kind: Arc<ApiKind>,
    listed: watch::Receiver<bool>,
    // Ends the watch when it is dropped.
    _end: tokio_util::sync::DropGuard,
}

impl Monitor {
    pub(crate) async fn run(self) {
        let mut running: HashMap<String, Running> = HashMap::new();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
        loop {
            let pause = match discover(&self.client).await {
                Ok(kinds) => {
                    backoff.reset();
                    self.follow(&kinds, &mut running);
                    if !*self.ready.borrow() {
                        let all = futures::future::join_all(running.values().map(|watch| listed(watch.listed.clone())));
                        // A kind that can't be listed must not keep the others from being collected.
                        let _ = tokio::time::timeout(PATIENCE, all).await;
                        self.ready.send_replace(true);
                    }
                    REDISCOVER
                }
                Err(error) => {
                    self.metrics.cluster().discovery_failed();
                    tracing::debug!(%error, "cannot discover the kinds of the API; trying again");
                    backoff.next_delay()
                }
            };
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.look_again.notified() => tokio::time::sleep(SETTLE).await,
            }
        }
    }

    fn follow(&self, kinds: &[Arc<ApiKind>], running: &mut HashMap<String, Running>) {
        let wanted: HashMap<String, &Arc<ApiKind>> =
            kinds.iter().filter(|kind| is_collectable(kind)).map(|kind| (kind.resource_and_group(), kind)).collect();
        running.retain(|name, watch| wanted.get(name).is_some_and(|kind| ***kind == *watch.kind));
        for (name, kind) in wanted {
            running.entry(name).or_insert_with(|| self.start(kind));
        }
        self.kinds.send_replace(Kinds::new(kinds));
    }

    fn start(&self, kind: &Arc<ApiKind>) -> Running {
        let (tell_listed, listed) = watch::channel(false);
        let end = self.shutdown.child_token();
        let task = follow(kind.clone(), self.client.clone(), self.seen.clone(), tell_listed);
        let ended = end.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = task => {}
            }
        });
        Running { kind: kind.clone(), listed, _end: end.drop_guard() }
    }
}

async fn listed(mut listed: watch::Receiver<bool>) {
    // An error means that the watch ended: nothing to wait for either.
    let _ = listed.wait_for(|listed| *listed).await;
}

async fn follow(kind: Arc<ApiKind>, client: Client, seen: mpsc::Sender<Seen>, tell_listed: watch::Sender<bool>) {
    let config = watcher::Config::default().page_size(500);
    let objects = Api::<Watched<Metadata>>::all_with(client, &kind.resource);
    let mut events = std::pin::pin!(watcher::watcher(objects, config));
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    let mut uids = HashSet::new();
    while let Some(event) = events.next().await {
        let message = match event {
            Ok(Event::Init) => {
                uids.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                let object = object.into_inner();
                uids.extend(object.metadata.uid.clone());
                Seen::There(kind.clone(), Box::new(object))
            }
            Ok(Event::InitDone) => Seen::Only(kind.clone(), std::mem::take(&mut uids)),
            Ok(Event::Apply(object)) => Seen::There(kind.clone(), Box::new(object.into_inner())),
            Ok(Event::Delete(object)) => Seen::Gone(Box::new(object.into_inner())),
            Err(error) if is_silence(&error) => continue,
            Err(error) => {
                tracing::debug!(resource = kind.resource.plural, %error, "failed to watch metadata; retrying");
                tokio::time::sleep(backoff.next_delay()).await;
                continue;
            }
        };
        backoff.reset();
        let is_list_end = matches!(message, Seen::Only(..));
        if seen.send(message).await.is_err() {
            return;
        }
        if is_list_end {
            tell_listed.send_replace(true);
        }
    }
}
