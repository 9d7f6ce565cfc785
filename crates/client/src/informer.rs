//! Shared informers: one watch and one cache per kind and selection, however many components read it.
//!
//! Invariants: an object in the cache is never changed in place; a subscriber sees every change after the snapshot it
//! started with, in order, and a subscriber that falls behind gets the newest state of each object instead of growing a
//! queue without bound. How objects are held is in `informer/held.rs`.

mod groups;
mod held;
mod mailbox;
mod packing;

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kedge_meta::ObjectKey;
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::failure::{FailureCause, classify, is_silence, of_status};
use crate::failure_log::FailureLog;
use crate::watched::{Watched, plain};
use groups::Groups;
use held::{Held, REST_PERIOD, Warm};
use mailbox::Mailbox;
use packing::Packing;

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
        K: Resource + Clone + Serialize + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Default,
    {
        self.select(InformerOptions::default())
    }

    /// The informer for a selection of a kind's objects.
    pub fn select<K>(&self, options: InformerOptions) -> Informer<K>
    where
        K: Resource + Clone + Serialize + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Default,
    {
        let mut running = self.running.lock();
        let entry = running.entry((TypeId::of::<K>(), options.clone())).or_insert_with(|| {
            let informer = Informer::<K>::idle(Warm::new(Some(Packing::of_json())));
            let (client, failures) = (self.client.clone(), self.failures.clone());
            tokio::spawn(follow(client, options, informer.clone(), failures, self.shutdown.clone()));
            Box::new(informer)
        });
        entry.downcast_ref::<Informer<K>>().expect("the entry's type is its key").clone()
    }
}

struct Cache<K> {
    objects: BTreeMap<ObjectKey, Arc<Held<K>>>,
    groups: Groups<K>,
    subscribers: Vec<Arc<Mailbox<K>>>,
}

/// A cache of objects that follows the API. Cheap to clone.
pub struct Informer<K> {
    cache: Arc<RwLock<Cache<K>>>,
    warm: Arc<Warm<K>>,
    synced: Arc<watch::Sender<bool>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), warm: self.warm.clone(), synced: self.synced.clone() }
    }
}

impl<K: Resource + Clone + 'static> Informer<K> {
    fn idle(warm: Warm<K>) -> Self {
        let cache = Cache { objects: BTreeMap::new(), groups: Groups::of_kind(), subscribers: Vec::new() };
        Self { cache: Arc::new(RwLock::new(cache)), warm: Arc::new(warm), synced: Arc::new(watch::Sender::new(false)) }
    }

    /// An informer that holds just these objects and is synced: for tests of code that reads informers.
    pub fn fixed(objects: impl IntoIterator<Item = K>) -> Self {
        let informer = Self::idle(Warm::new(None));
        for object in objects {
            informer.put(object);
        }
        informer.synced.send_replace(true);
        informer
    }
}

impl<K: Resource + Clone> Informer<K> {
    /// The object of a key, where it exists.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        let held = self.cache.read().objects.get(key).cloned()?;
        Some(self.warm.get(&held))
    }

    /// Whether there is an object of a key.
    pub fn contains(&self, key: &ObjectKey) -> bool {
        self.cache.read().objects.contains_key(key)
    }

    /// All objects, in the order of their keys. Where there are very many, most of them have to be unpacked for it.
    pub fn list(&self) -> Vec<Arc<K>> {
        let all = self.held();
        all.iter().map(|held| held.object()).collect()
    }

    /// All objects that `keep` accepts, in the order of their keys; as dear as [`Self::list`].
    pub fn filter(&self, keep: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let all = self.held();
        all.iter().filter_map(|held| held.filtered(&keep)).collect()
    }

    /// The objects of a namespace, in the order of their names.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.filter_in(namespace, |_| true)
    }

    /// The objects of a namespace that `keep` accepts, in the order of their names.
    pub fn filter_in(&self, namespace: &str, keep: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let first = ObjectKey::new(namespace, "");
        let held: Vec<Arc<Held<K>>> = {
            let cache = self.cache.read();
            let from_there = cache.objects.range(first..);
            from_there.take_while(|(key, _)| key.namespace == namespace).map(|(_, held)| held.clone()).collect()
        };
        held.iter().filter_map(|held| held.filtered(&keep)).collect()
    }

    fn held(&self) -> Vec<Arc<Held<K>>> {
        self.cache.read().objects.values().cloned().collect()
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
        let mailbox = Arc::new(Mailbox::new());
        let mut cache = self.cache.write();
        for (key, held) in &cache.objects {
            mailbox.deliver(key, None, Some(held.clone()));
        }
        cache.subscribers.push(mailbox.clone());
        Subscription { mailbox }
    }

    fn put(&self, object: K) {
        // Nothing says who owns which field; an update without that leaves the live record as it is.
        let key = object_key(&object);
        let version = object.meta().resource_version.as_deref().and_then(|version| version.parse().ok());
        // A copy has just the room that it needs; what was decoded has room for lists to grow.
        let object = Arc::new(object.clone());
        let mut cache = self.cache.write();
        let group = cache.groups.name_for(&object);
        let held = Arc::new(Held::new(object, version.unwrap_or_default(), group));
        let old = cache.objects.insert(key.clone(), held.clone());
        cache.groups.replace(old.as_ref(), Some(&held));
        if old.as_ref().is_none_or(|old| old.version != held.version || held.version == 0) {
            cache.tell(&key, old, Some(held.clone()));
        }
        drop(cache);
        self.warm.admit(&held);
    }

    fn remove(&self, key: &ObjectKey) {
        let mut cache = self.cache.write();
        if let Some(old) = cache.objects.remove(key) {
            cache.groups.replace(Some(&old), None);
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

impl<K> Informer<K> {
    fn group(&self, name: &str) -> Vec<Arc<K>> {
        let held = self.cache.read().groups.get(name).to_vec();
        held.iter().map(|held| held.object()).collect()
    }
}

impl Informer<Pod> {
    /// The pods that are bound to a node, in no order.
    pub fn on_node(&self, node: &str) -> Vec<Arc<Pod>> {
        self.group(node)
    }
}

impl Informer<PersistentVolume> {
    /// The volumes that are reserved for a claim of this name, in no order.
    pub fn for_claim(&self, claim: &ObjectKey) -> Vec<Arc<PersistentVolume>> {
        self.group(&groups::of_claim(&claim.namespace, &claim.name))
    }

    /// The volumes of a class (empty for those without one) that are reserved for nobody, in no order.
    pub fn open_of_class(&self, class: &str) -> Vec<Arc<PersistentVolume>> {
        self.group(&groups::of_class(class))
    }
}

impl Informer<PersistentVolumeClaim> {
    /// The claims that name a volume, in no order.
    pub fn for_volume(&self, volume: &str) -> Vec<Arc<PersistentVolumeClaim>> {
        self.group(&groups::of_volume(volume))
    }

    /// The claims of a class (empty for those without one) that name no volume yet, in no order.
    pub fn open_of_class(&self, class: &str) -> Vec<Arc<PersistentVolumeClaim>> {
        self.group(&groups::of_class(class))
    }
}

impl<K> Cache<K> {
    fn tell(&mut self, key: &ObjectKey, old: Option<Arc<Held<K>>>, new: Option<Arc<Held<K>>>) {
        // A mailbox that only the cache still holds has lost its subscription.
        self.subscribers.retain(|mailbox| Arc::strong_count(mailbox) > 1);
        for mailbox in &self.subscribers {
            mailbox.deliver(key, old.clone(), new.clone());
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
            self.mailbox.arrived().await;
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
    let mut rest = tokio::time::interval(REST_PERIOD);
    rest.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = stream.next() => event,
            _ = rest.tick() => {
                informer.warm.rest().await;
                continue;
            }
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
            Some(Err(error)) if is_silence(&error) => tracing::debug!(what, "a silent watch is begun again"),
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
    let api = match &options.namespace {
        Some(namespace) => Api::<Watched<K>>::namespaced(client, namespace),
        None => Api::<Watched<K>>::all(client),
    };
    watcher::watcher(api, config).map_ok(plain).boxed()
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
mod tests;
