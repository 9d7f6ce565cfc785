//! The scheduler's loop: one task owns the cache and the queue, takes in changes, and decides about one pod at a time;
//! bindings and other effects run beside it.
//!
//! Invariant: changes are taken in between two attempts, never within one.

mod attempt;
mod binding;
mod changes;
mod give_up;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kedge_client::{Informer, Recorder, Subscription};
use kedge_meta::{ComponentStatus, LabelSelector, ObjectKey};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::alike::Alike;
use crate::bind_claims::Promised;
use crate::bind_volumes::Reserved;
use crate::cache::Cache;
use crate::device_facts::{DeviceCaches, DeviceChanges};
use crate::event::Event;
use crate::evictions::Evictions;
use crate::execute::Executor;
use crate::extender::Extender;
use crate::framework::Surroundings;
use crate::memory::Memory;
use crate::metrics::SchedulerMetrics;
use crate::nominated::Nominated;
use crate::plugins::image_names;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use crate::queue::{Patience, Queue};
use crate::run::{Config, Deps};
use crate::storage_facts::{StorageCaches, StorageChanges};
use binding::Binding;

const FINISHED_BOUND: usize = 256;
/// So many bindings may be on their way before the next decision waits for one; those that wait for volumes or devices are
/// not counted.
const BINDINGS_BOUND: usize = 512;
/// How often the gauges are set while there is always another pod to try.
const ATTEMPTS_PER_REPORT: u32 = 256;

struct Caches {
    namespaces: Informer<Namespace>,
    services: Informer<Service>,
    pods: Informer<Pod>,
    storage: StorageCaches,
    devices: DeviceCaches,
    budgets: Informer<PodDisruptionBudget>,
}

impl Caches {
    async fn synced(&self) {
        self.namespaces.synced().await;
        self.services.synced().await;
        self.pods.synced().await;
        self.storage.synced().await;
        self.devices.synced().await;
        self.budgets.synced().await;
    }
}

/// Where changes come from.
struct Changes {
    pods: Subscription<Pod>,
    nodes: Subscription<Node>,
    storage: StorageChanges,
    devices: DeviceChanges,
    bindings: mpsc::Receiver<Binding>,
    /// Pods that should have gone and could not be deleted.
    spared: mpsc::UnboundedReceiver<ObjectKey>,
}

pub(crate) struct Scheduler {
    executor: Executor,
    profiles: HashMap<String, Arc<Profile>>,
    extenders: Vec<Extender>,
    status: ComponentStatus,
    caches: Caches,
    cache: Cache,
    alike: Mutex<Alike>,
    queue: Queue,
    nominated: Nominated,
    evictions: Evictions,
    memory: Memory,
    spared: mpsc::UnboundedSender<ObjectKey>,
    reserved: Reserved,
    promised: Promised,
    finished: mpsc::Sender<Binding>,
    metrics: Arc<SchedulerMetrics>,
    changes: Option<Changes>,
    /// The node at which the next search begins.
    next_node: usize,
    /// Bindings on their way that wait for the API server only.
    in_flight: usize,
}

impl Scheduler {
    /// A scheduler that knows what there is; `None` where it was told to stop before that.
    pub(crate) async fn new(
        config: &Config,
        deps: &Deps,
        profiles: Vec<Profile>,
        extenders: Vec<Extender>,
        shutdown: &CancellationToken,
    ) -> Option<Self> {
        let informers = &deps.informers;
        let caches = Caches {
            namespaces: informers.all(),
            services: informers.all(),
            pods: informers.all(),
            storage: StorageCaches::new(informers),
            devices: DeviceCaches::new(informers),
            budgets: informers.all(),
        };
        let nodes = informers.all::<Node>();
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = async { caches.synced().await; nodes.synced().await } => {}
        }
        deps.metrics.pods.know(&caches.pods);
        let name = profiles.first().map_or("default-scheduler", |profile| profile.scheduler_name.as_str());
        let recorder = Recorder::start(deps.client.clone(), name, "", shutdown.clone());
        let executor = Executor::new(deps.client.clone(), recorder, deps.clock.clone());
        let (finished, bindings) = mpsc::channel(FINISHED_BOUND);
        let (spare, spared) = mpsc::unbounded_channel();
        let changes = Changes {
            pods: caches.pods.subscribe(),
            nodes: nodes.subscribe(),
            storage: caches.storage.changes(),
            devices: caches.devices.changes(),
            bindings,
            spared,
        };
        let seconds = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let said = &config.configuration;
        let patience = Patience {
            first: seconds(said.pod_initial_backoff_seconds),
            longest: seconds(said.pod_max_backoff_seconds),
        };
        deps.status.running();
        Some(Self {
            executor,
            profiles: profiles.into_iter().map(|one| (one.scheduler_name.clone(), Arc::new(one))).collect(),
            extenders,
            status: deps.status.clone(),
            caches,
            cache: Cache::default(),
            alike: Mutex::default(),
            queue: Queue::new(patience),
            nominated: Nominated::default(),
            evictions: Evictions::default(),
            memory: Memory::default(),
            spared: spare,
            reserved: Reserved::default(),
            promised: Promised::default(),
            finished,
            metrics: deps.metrics.clone(),
            changes: Some(changes),
            next_node: 0,
            in_flight: 0,
        })
    }

    pub(crate) async fn work(mut self, shutdown: CancellationToken) {
        let Some(mut changes) = self.changes.take() else { return };
        let mut unreported = 0;
        while !shutdown.is_cancelled() {
            self.take_in_all(&mut changes);
            if self.in_flight >= BINDINGS_BOUND {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    Some(binding) = changes.bindings.recv() => self.take_in_binding(binding),
                }
                continue;
            }
            unreported += 1;
            if let Some(taken) = self.queue.next(Instant::now()) {
                self.attempt(taken).await;
                if unreported < ATTEMPTS_PER_REPORT {
                    // The loop must not starve the other tasks of its thread while many pods wait.
                    tokio::task::yield_now().await;
                    continue;
                }
                self.report(&mut unreported);
                continue;
            }
            self.report(&mut unreported);
            let due = self.queue.next_due().unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
            tokio::select! {
                () = shutdown.cancelled() => return,
                change = changes.pods.next() => self.take_in_pod(change),
                change = changes.nodes.next() => self.take_in_node(change),
                change = changes.storage.next() => self.happened(Event::Object(&change)),
                change = changes.devices.next() => self.happened(Event::Object(&change)),
                Some(binding) = changes.bindings.recv() => self.take_in_binding(binding),
                Some(victim) = changes.spared.recv() => self.has_left(&victim),
                () = tokio::time::sleep_until(due) => {}
            }
            self.status.heartbeat(None);
        }
    }

    fn report(&self, unreported: &mut u32) {
        *unreported = 0;
        let (nodes, placed, assumed) = self.cache.sizes();
        self.metrics.stands(self.queue.pending(), nodes, placed, assumed);
        self.metrics.refused(self.queue.refused());
        self.metrics.binding(self.in_flight);
    }

    /// Promises a node to a pod that waits for it.
    fn promise(&mut self, pod: Arc<PodInfo>, node: &str) {
        if let Some(before) = self.nominated.add(pod, node) {
            self.cache.touch(&before);
        }
        self.cache.touch(node);
    }

    /// Takes back what a pod was promised.
    fn take_back_promise(&mut self, pod: &ObjectKey) {
        if let Some(node) = self.nominated.remove(pod) {
            self.cache.touch(&node);
        }
    }

    /// The profile whose business a pod is.
    fn profile(&self, pod: &PodInfo) -> Option<Arc<Profile>> {
        self.profiles.get(pod.scheduler_name()).cloned()
    }

    /// What the plugins may look at, gathered only as far as the pod needs it.
    fn surroundings(&mut self, pod: &PodInfo) -> Surroundings {
        let mut surroundings =
            Surroundings { has_affine_pods: self.cache.has_affine_pods(), ..Surroundings::default() };
        if pod.pod().spec.is_none() {
            return surroundings;
        }
        self.caches.storage.add_to(&mut surroundings, pod, &self.cache, &self.reserved);
        self.caches.devices.add_to(&mut surroundings, pod, &mut self.promised);
        surroundings.namespace_labels = self.namespace_labels(pod, surroundings.has_affine_pods);
        for image in image_names(pod) {
            let nodes = self.cache.image_spread(&image);
            if nodes > 0 {
                surroundings.image_spread.insert(image, nodes);
            }
        }
        let has_own = pod
            .pod()
            .spec
            .as_ref()
            .is_some_and(|spec| spec.topology_spread_constraints.iter().flatten().next().is_some());
        if !has_own {
            surroundings.default_spread_selectors = self.spread_selector(pod).into_iter().collect();
        }
        surroundings
    }

    /// The labels of namespaces that terms about pods may select by.
    fn namespace_labels(&self, pod: &PodInfo, has_affine_pods: bool) -> BTreeMap<String, BTreeMap<String, String>> {
        let labels = |namespace: Arc<Namespace>| {
            (namespace.metadata.name.clone().unwrap_or_default(), namespace.metadata.labels.clone().unwrap_or_default())
        };
        match (pod.shape.affinity.is_some(), has_affine_pods) {
            (true, _) => self.caches.namespaces.list().into_iter().map(labels).collect(),
            (false, true) => {
                let own = self.caches.namespaces.get(&kedge_meta::ObjectKey::cluster(pod.namespace()));
                own.into_iter().map(labels).collect()
            }
            (false, false) => BTreeMap::new(),
        }
    }

    /// The labels by which the pod's Services select it, and its own where a controller made it: its likes.
    fn spread_selector(&self, pod: &PodInfo) -> Option<BTreeMap<String, String>> {
        let mut merged = BTreeMap::new();
        for service in self.caches.services.in_namespace(pod.namespace()) {
            let Some(selector) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { continue };
            if !selector.is_empty() && LabelSelector::from_map(selector).matches(pod.labels()) {
                merged.extend(selector.clone());
            }
        }
        let owners = pod.pod().metadata.owner_references.iter().flatten();
        let spread = ["ReplicaSet", "ReplicationController", "StatefulSet"];
        if owners.into_iter().any(|owner| owner.controller == Some(true) && spread.contains(&owner.kind.as_str())) {
            let shared = |(key, _): &(&String, &String)| !key.starts_with("statefulset.") && !key.starts_with("apps.");
            merged.extend(pod.labels().iter().filter(shared).map(|(key, value)| (key.clone(), value.clone())));
        }
        (!merged.is_empty()).then_some(merged)
    }
}
