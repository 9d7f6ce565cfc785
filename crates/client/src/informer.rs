//! Shared informers: one watch and one cache per kind and selection, however many components read it.
//!
//! Invariants: an object in the cache is never changed in place; a subscriber sees every change after the snapshot it
//! started with, in order, and a subscriber that falls behind gets the newest state of each object instead of growing a
//! queue without bound.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use kedge_meta::ObjectKey;
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::failure::{FailureCause, classify, of_status};
use crate::failure_log::FailureLog;
use crate::namespaced::{self, Namespaced};

/// What an informer selects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct InformerOptions {
    /// One namespace; all where absent.
    pub namespace: Option<String>,
    /// A field selector such as `spec.nodeName=node-1`.
    pub field_selector: Option<String>,
    /// A label selector.
    pub label_selector: Option<String>,
}

/// A change of one object, as subscribers see it.
#[derive(Debug, Clone)]
pub enum Change<K> {
    /// The object came to be (or was there when the subscription began).
    Added(Arc<K>),
    /// The object changed.
    Updated {
        /// Before.
        old: Arc<K>,
        /// After.
        new: Arc<K>,
    },
    /// The object is gone; this is its last known state.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The newest state of the object.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Change::Added(object) | Change::Deleted(object) | Change::Updated { new: object, .. } => object,
        }
    }
}

/// The key of an object.
pub fn object_key<K: Resource>(object: &K) -> ObjectKey {
    ObjectKey::new(object.meta().namespace.clone().unwrap_or_default(), object.meta().name.clone().unwrap_or_default())
}

/// The informers that run, each an `Informer<K>` under the type of its kind and its selection.
type Running = HashMap<(TypeId, InformerOptions), Box<dyn Any + Send + Sync>>;

/// All informers of one process. Cheap to clone.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    shutdown: CancellationToken,
    failures: FailureLog,
    running: Arc<Mutex<Running>>,
}

impl Informers {
    /// No informer runs yet; each starts when it is first asked for and ends with `shutdown`.
    pub fn new(client: Client, shutdown: CancellationToken) -> Self {
        Self { client, shutdown, failures: FailureLog::default(), running: Arc::default() }
    }

    /// The client that the informers use.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where failures of that client are told, for others that use it.
    pub fn failures(&self) -> &FailureLog {
        &self.failures
    }

    /// The informer for all objects of a kind. Must be called inside a tokio runtime.
    pub fn all<K>(&self) -> Informer<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Default,
    {
        self.select(InformerOptions::default())
    }

    /// The informer for a selection of a kind's objects.
    pub fn select<K>(&self, options: InformerOptions) -> Informer<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Default,
    {
        let mut running = self.running.lock();
        let entry = running.entry((TypeId::of::<K>(), options.clone())).or_insert_with(|| {
            let informer = Informer::<K>::idle();
            let (client, failures) = (self.client.clone(), self.failures.clone());
            tokio::spawn(follow(client, options, informer.clone(), failures, self.shutdown.clone()));
            Box::new(informer)
        });
        entry.downcast_ref::<Informer<K>>().expect("the entry's type is its key").clone()
    }
}

struct Cache<K> {
    objects: HashMap<ObjectKey, Arc<K>>,
    subscribers: Vec<Arc<Mailbox<K>>>,
}

/// A cache of objects that follows the API. Cheap to clone.
pub struct Informer<K> {
    cache: Arc<RwLock<Cache<K>>>,
    synced: Arc<watch::Sender<bool>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), synced: self.synced.clone() }
    }
}

impl<K: Resource + Clone> Informer<K> {
    fn idle() -> Self {
        let cache = Cache { objects: HashMap::new(), subscribers: Vec::new() };
        Self { cache: Arc::new(RwLock::new(cache)), synced: Arc::new(watch::Sender::new(false)) }
    }

    /// An informer that holds just these objects and is synced: for tests of code that reads informers.
    pub fn fixed(objects: impl IntoIterator<Item = K>) -> Self {
        let informer = Self::idle();
        for object in objects {
            informer.put(object);
        }
        informer.synced.send_replace(true);
        informer
    }

    /// The object of a key, where it exists.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.cache.read().objects.get(key).cloned()
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.cache.read().objects.values().cloned().collect()
    }

    /// All objects that `keep` accepts, in no order.
    pub fn filter(&self, keep: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        self.cache.read().objects.values().filter(|object| keep(object)).cloned().collect()
    }

    /// The objects of a namespace, in no order.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.filter(|object| object.meta().namespace.as_deref().unwrap_or_default() == namespace)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.cache.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first complete list is in the cache.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until the first complete list is in the cache.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives in `self`, so waiting can't fail.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// A subscription that starts with an `Added` for each object there is.
    pub fn subscribe(&self) -> Subscription<K> {
        let mailbox = Arc::new(Mailbox { pending: Mutex::default(), arrived: Notify::new() });
        let mut cache = self.cache.write();
        for (key, object) in &cache.objects {
            mailbox.deliver(key, None, Some(object.clone()));
        }
        cache.subscribers.push(mailbox.clone());
        Subscription { mailbox }
    }

    fn put(&self, mut object: K) {
        // Nobody who reads a cache asks who owns which field, and these records take more memory than all the rest. An
        // update without them leaves the live ones as they are.
        object.meta_mut().managed_fields = None;
        let key = object_key(&object);
        let object = Arc::new(object);
        let mut cache = self.cache.write();
        let old = cache.objects.insert(key.clone(), object.clone());
        if old
            .as_ref()
            .is_some_and(|old| old.resource_version() == object.resource_version() && old.resource_version().is_some())
        {
            return;
        }
        cache.tell(&key, old, Some(object));
    }

    fn remove(&self, key: &ObjectKey) {
        let mut cache = self.cache.write();
        if let Some(old) = cache.objects.remove(key) {
            cache.tell(key, Some(old), None);
        }
    }

    fn retain(&self, keys: &HashSet<ObjectKey>) {
        let gone: Vec<ObjectKey> =
            self.cache.read().objects.keys().filter(|key| !keys.contains(*key)).cloned().collect();
        for key in gone {
            self.remove(&key);
        }
    }
}

impl<K> Cache<K> {
    fn tell(&mut self, key: &ObjectKey, old: Option<Arc<K>>, new: Option<Arc<K>>) {
        // A mailbox that only the cache still holds has lost its subscription.
        self.subscribers.retain(|mailbox| Arc::strong_count(mailbox) > 1);
        for mailbox in &self.subscribers {
            mailbox.deliver(key, old.clone(), new.clone());
        }
    }
}

/// Changes that a subscriber has not taken yet: one entry for each object, so that its size is bounded by the cache's.
struct Mailbox<K> {
    pending: Mutex<Pending<K>>,
    arrived: Notify,
}

struct Pending<K> {
    order: BTreeMap<u64, ObjectKey>,
    entries: HashMap<ObjectKey, PendingEntry<K>>,
    sequence: u64,
}

impl<K> Default for Pending<K> {
    fn default() -> Self {
        Self { order: BTreeMap::new(), entries: HashMap::new(), sequence: 0 }
    }
}

struct PendingEntry<K> {
    sequence: u64,
    before: Option<Arc<K>>,
    after: Option<Arc<K>>,
}

impl<K> Mailbox<K> {
    fn deliver(&self, key: &ObjectKey, old: Option<Arc<K>>, new: Option<Arc<K>>) {
        let mut pending = self.pending.lock();
        if let Some(entry) = pending.entries.get_mut(key) {
            entry.after = new;
        } else {
            pending.sequence += 1;
            let sequence = pending.sequence;
            pending.order.insert(sequence, key.clone());
            pending.entries.insert(key.clone(), PendingEntry { sequence, before: old, after: new });
        }
        drop(pending);
        self.arrived.notify_one();
    }

    fn take(&self) -> Option<Change<K>> {
        let mut pending = self.pending.lock();
        loop {
            let (sequence, key) = pending.order.pop_first()?;
            let entry = pending.entries.remove(&key).expect("every ordered key has an entry");
            debug_assert_eq!(entry.sequence, sequence);
            match (entry.before, entry.after) {
                (None, Some(new)) => return Some(Change::Added(new)),
                (Some(old), Some(new)) => return Some(Change::Updated { old, new }),
                (Some(old), None) => return Some(Change::Deleted(old)),
                // Came and went before anybody looked.
                (None, None) => {}
            }
        }
    }
}

/// A subscriber's end of an informer.
pub struct Subscription<K> {
    mailbox: Arc<Mailbox<K>>,
}

impl<K> Subscription<K> {
    /// Waits for the next change. Cancel-safe.
    pub async fn next(&mut self) -> Change<K> {
        loop {
            if let Some(change) = self.mailbox.take() {
                return change;
            }
            self.mailbox.arrived.notified().await;
        }
    }

    /// The next change, if one is pending.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        self.mailbox.take()
    }
}

async fn follow<K>(
    client: Client,
    options: InformerOptions,
    informer: Informer<K>,
    failures: FailureLog,
    shutdown: CancellationToken,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default,
{
    let mut stream = events(client, &options);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    let mut listed = HashSet::new();
    let what = format!("watch {}", K::plural(&K::DynamicType::default()));
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = stream.next() => event,
        };
        match event {
            Some(Ok(event)) => {
                // `Init` only says that a list is about to be tried.
                if !matches!(event, Event::Init) {
                    backoff.reset();
                    failures.succeeded(&what);
                }
                absorb(&informer, event, &mut listed);
            }
            Some(Err(error)) => {
                match cause(&error) {
                    // The server no longer has the history to go on from: the next list brings everything.
                    FailureCause::Status(410) => tracing::debug!(what, "a watch starts over"),
                    cause => failures.failed_by(&what, cause, &error),
                }
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(backoff.next_delay()) => {}
                    () = failures.reached_again() => backoff.reset(),
                }
            }
            None => return,
        }
    }
}

/// What a watch of what is selected tells.
fn events<K>(client: Client, options: &InformerOptions) -> BoxStream<'static, watcher::Result<Event<K>>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default,
{
    let mut config = watcher::Config::default().page_size(500);
    if let Some(fields) = &options.field_selector {
        config = config.fields(fields);
    }
    if let Some(labels) = &options.label_selector {
        config = config.labels(labels);
    }
    match &options.namespace {
        Some(namespace) => {
            let api = Api::<Namespaced<K>>::namespaced(client, namespace);
            watcher::watcher(api, config).map_ok(namespaced::plain).boxed()
        }
        None => watcher::watcher(Api::<K>::all(client), config).boxed(),
    }
}

fn absorb<K: Resource + Clone>(informer: &Informer<K>, event: Event<K>, listed: &mut HashSet<ObjectKey>) {
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(object) => {
            listed.insert(object_key(&object));
            informer.put(object);
        }
        Event::InitDone => {
            informer.retain(listed);
            listed.clear();
            listed.shrink_to_fit();
            informer.synced.send_replace(true);
        }
        Event::Apply(object) => informer.put(object),
        Event::Delete(object) => informer.remove(&object_key(&object)),
    }
}

fn cause(error: &watcher::Error) -> FailureCause {
    match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => classify(source),
        watcher::Error::WatchError(status) => of_status(status.code),
        watcher::Error::NoResourceVersion => FailureCause::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn config_map(name: &str, version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.to_owned());
        object.metadata.namespace = Some("default".to_owned());
        object.metadata.resource_version = Some(version.to_owned());
        object
    }

    fn next(subscription: &mut Subscription<ConfigMap>) -> String {
        match subscription.try_next() {
            None => "nothing".to_owned(),
            Some(Change::Added(new)) => format!("added {}", new.name_any()),
            Some(Change::Updated { old, new }) => {
                format!("updated {} {:?}->{:?}", new.name_any(), old.resource_version(), new.resource_version())
            }
            Some(Change::Deleted(old)) => format!("deleted {}", old.name_any()),
        }
    }

    #[test]
    fn a_slow_subscriber_gets_the_newest_state_of_each_object() {
        let informer = Informer::fixed([config_map("a", "1")]);
        let mut subscription = informer.subscribe();
        assert_eq!(next(&mut subscription), "added a");
        informer.put(config_map("a", "2"));
        informer.put(config_map("b", "3"));
        informer.put(config_map("a", "4"));
        informer.put(config_map("c", "5"));
        informer.remove(&ObjectKey::new("default", "c"));
        assert_eq!(next(&mut subscription), "updated a Some(\"1\")->Some(\"4\")");
        assert_eq!(next(&mut subscription), "added b");
        assert_eq!(next(&mut subscription), "nothing");
    }

    #[test]
    fn a_relist_removes_what_is_gone() {
        let informer = Informer::fixed([config_map("a", "1"), config_map("b", "2")]);
        let mut subscription = informer.subscribe();
        while subscription.try_next().is_some() {}
        let mut listed = HashSet::new();
        absorb(&informer, Event::Init, &mut listed);
        absorb(&informer, Event::InitApply(config_map("b", "2")), &mut listed);
        absorb(&informer, Event::InitDone, &mut listed);
        assert_eq!(next(&mut subscription), "deleted a");
        assert_eq!(next(&mut subscription), "nothing");
        assert_eq!(informer.len(), 1);
    }

    #[test]
    fn a_dropped_subscription_is_forgotten() {
        let informer = Informer::fixed([config_map("a", "1")]);
        drop(informer.subscribe());
        informer.put(config_map("a", "2"));
        assert_eq!(informer.cache.read().subscribers.len(), 0);
    }
}
