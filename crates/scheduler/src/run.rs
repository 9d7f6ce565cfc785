//! The scheduler's loop: one task owns the cache and the queue, takes in changes, and decides about one pod at a time;
//! bindings and other effects run beside it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, PodResourceClaimStatus, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kedge_client::{
    Change, Client, Informer, Informers, LeaderConfig, LeaderElector, LeaderError, Recorder, object_key,
};
use kedge_meta::{Clock, ComponentStatus, LabelSelector, ObjectKey};
use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bind_claims::{ClaimBinder, Promised};
use crate::bind_volumes::{Reserved, VolumeBinder};
use crate::cache::Cache;
use crate::cycle::{Failure, Outcome, decide};
use crate::device_facts::DeviceCaches;
use crate::execute::Executor;
use crate::framework::{Cycle, Plugin, Surroundings};
use crate::metrics::{Ended, SchedulerMetrics};
use crate::node_info::{NodeInfo, PodInfo};
use crate::plugins::{ClaimPlan, PodVolumes, claim_plans, default_plugins, not_ready, to_give_back, volumes_for};
use crate::preemption;
use crate::queue::{Queue, Taken, is_gated};
use crate::storage_facts::StorageCaches;

const FINISHED_BOUND: usize = 256;

/// What the scheduler is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Pods with this `spec.schedulerName` are its business.
    pub scheduler_name: String,
    /// Where several schedulers may run: the lease for which they compete.
    pub leader_election: Option<LeaderConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self { scheduler_name: "default-scheduler".to_owned(), leader_election: None }
    }
}

/// What the scheduler works with.
pub struct Deps {
    /// The API, as `system:kube-scheduler`.
    pub client: Client,
    /// Shared caches.
    pub informers: Informers,
    /// Where it reports.
    pub status: ComponentStatus,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where is counted what it does.
    pub metrics: Arc<SchedulerMetrics>,
}

/// Why the scheduler can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The leader election's durations make no sense.
    #[error("the leader election is misconfigured")]
    Leader(#[from] LeaderError),
}

/// Schedules until `shutdown`. Losing the API or the lease never ends it: it stops deciding, says so, and goes on later.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), Error> {
    let mut elector = match &config.leader_election {
        Some(leader) => {
            Some(LeaderElector::new(deps.client.clone(), leader.clone())?.counted(&deps.metrics.component.leases))
        }
        None => None,
    };
    let Some(elector) = &mut elector else {
        schedule(&config, &deps, shutdown).await;
        return Ok(());
    };
    while !shutdown.is_cancelled() {
        deps.status.set(kedge_meta::ComponentState::Starting, "WaitingForLease", "another scheduler is active");
        if !elector.acquire(&shutdown).await {
            break;
        }
        let term = shutdown.child_token();
        let work = schedule(&config, &deps, term.clone());
        let (_, lost) = tokio::join!(work, async {
            let lost = elector.hold(&shutdown).await;
            term.cancel();
            lost
        });
        if let Some(after) = lost {
            let text = format!("the lease could not be renewed for {:.1} s; competing again", after.as_secs_f64());
            deps.status.degraded("LeaseLost", text);
        }
    }
    Ok(())
}

async fn schedule(config: &Config, deps: &Deps, shutdown: CancellationToken) {
    let informers = &deps.informers;
    let caches = Caches {
        namespaces: informers.all(),
        services: informers.all(),
        pods: informers.all(),
        storage: StorageCaches::new(informers),
        devices: DeviceCaches::new(informers),
        budgets: informers.all(),
    };
    let (pods, nodes) = (informers.all::<Pod>(), informers.all::<Node>());
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = caches.synced() => {}
    }
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = async { pods.synced().await; nodes.synced().await } => {}
    }
    let recorder = Recorder::start(deps.client.clone(), &config.scheduler_name, "", shutdown.clone());
    let (finished, bindings) = mpsc::channel(FINISHED_BOUND);
    let scheduler = Scheduler {
        executor: Executor {
            client: deps.client.clone(),
            recorder,
            clock: deps.clock.clone(),
            scheduler_name: config.scheduler_name.as_str().into(),
        },
        scheduler_name: config.scheduler_name.clone(),
        status: deps.status.clone(),
        caches,
        cache: Cache::default(),
        queue: Queue::default(),
        plugins: default_plugins(),
        nominated: HashMap::new(),
        reserved: Reserved::default(),
        promised: Promised::default(),
        finished,
        metrics: deps.metrics.clone(),
    };
    deps.status.running();
    scheduler.work(pods, nodes, bindings, shutdown).await;
}

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
        self.storage.synced().await;
        self.devices.synced().await;
        self.budgets.synced().await;
    }
}

/// How a binding ended.
struct Binding {
    taken: Taken,
    volumes: PodVolumes,
    claims: Vec<ClaimPlan>,
    written: Vec<Arc<ResourceClaim>>,
    result: Result<(), String>,
    began: Instant,
}

struct Scheduler {
    executor: Executor,
    scheduler_name: String,
    status: ComponentStatus,
    caches: Caches,
    cache: Cache,
    queue: Queue,
    plugins: Vec<Box<dyn Plugin>>,
    nominated: HashMap<ObjectKey, (String, Arc<PodInfo>)>,
    reserved: Reserved,
    promised: Promised,
    finished: mpsc::Sender<Binding>,
    metrics: Arc<SchedulerMetrics>,
}

impl Scheduler {
    async fn work(
        mut self,
        pods: Informer<Pod>,
        nodes: Informer<Node>,
        mut bindings: mpsc::Receiver<Binding>,
        shutdown: CancellationToken,
    ) {
        let (mut pods, mut nodes) = (pods.subscribe(), nodes.subscribe());
        let mut storage = self.caches.storage.changes();
        let mut devices = self.caches.devices.changes();
        loop {
            while let Some(change) = nodes.try_next() {
                self.take_in_node(change);
            }
            while let Some(change) = pods.try_next() {
                self.take_in_pod(change);
            }
            if let Some(taken) = self.queue.next(Instant::now()) {
                self.attempt(taken).await;
                // The loop must not starve the other tasks of its thread while many pods wait.
                tokio::task::yield_now().await;
                if !shutdown.is_cancelled() {
                    continue;
                }
            }
            let (known_nodes, placed, assumed) = self.cache.sizes();
            self.metrics.stands(self.queue.pending(), known_nodes, placed, assumed);
            let due = self.queue.next_due().unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
            tokio::select! {
                () = shutdown.cancelled() => return,
                change = pods.next() => self.take_in_pod(change),
                change = nodes.next() => self.take_in_node(change),
                () = storage.next() => self.queue.cluster_changed(Instant::now()),
                () = devices.next() => self.queue.cluster_changed(Instant::now()),
                Some(binding) = bindings.recv() => self.take_in_binding(binding),
                () = tokio::time::sleep_until(due) => {}
            }
            self.status.heartbeat(None);
        }
    }

    fn take_in_node(&mut self, change: Change<Node>) {
        match change {
            Change::Added(node) => self.cache.set_node(node),
            Change::Updated { old, new } => {
                let helps = may_help(&old, &new);
                self.cache.set_node(new);
                if !helps {
                    return;
                }
            }
            Change::Deleted(node) => self.cache.remove_node(node.metadata.name.as_deref().unwrap_or_default()),
        }
        self.queue.cluster_changed(Instant::now());
    }

    fn take_in_pod(&mut self, change: Change<Pod>) {
        let deleted = matches!(change, Change::Deleted(_));
        let pod = change.object().clone();
        let key = object_key(&*pod);
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty());
        if deleted || is_terminal(&pod) {
            self.queue.remove(&key);
            self.nominated.remove(&key);
            self.cache.remove_pod(&key);
            return self.queue.cluster_changed(Instant::now());
        }
        if let Some(node) = node {
            self.queue.remove(&key);
            self.nominated.remove(&key);
            self.cache.set_pod(&node, Arc::new(PodInfo::new(pod)));
            // A new neighbour may be what a pod with affinity waits for.
            return self.queue.cluster_changed(Instant::now());
        }
        let ours = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()) == Some(&self.scheduler_name);
        if !ours || pod.metadata.deletion_timestamp.is_some() {
            return self.queue.remove(&key);
        }
        let only_status = matches!(&change, Change::Updated { old, new } if old.spec == new.spec && old.metadata.labels == new.metadata.labels && claim_statuses(old) == claim_statuses(new));
        if !only_status && !self.cache.is_assumed(&key) {
            self.enqueue(Arc::new(PodInfo::new(pod)));
        }
    }

    fn enqueue(&mut self, pod: Arc<PodInfo>) {
        if is_gated(&pod) {
            let (executor, pod) = (self.executor.clone(), pod.clone());
            tokio::spawn(async move {
                let text = "Scheduling is blocked due to non-empty scheduling gates";
                executor.report_unscheduled(&pod, "SchedulingGated", text).await;
            });
        }
        self.queue.add(pod);
    }

    fn take_in_binding(&mut self, binding: Binding) {
        self.reserved.remove(&binding.volumes);
        self.promised.settle(&binding.claims, &binding.written);
        let ended = if binding.result.is_ok() { Ended::Scheduled } else { Ended::Error };
        self.metrics.attempted(&self.scheduler_name, ended, binding.began.elapsed());
        let Err(why) = binding.result else {
            return self.metrics.bound(binding.taken.attempts, binding.taken.first_attempt.elapsed());
        };
        let pod = binding.taken.pod.clone();
        self.cache.forget(&pod.key);
        let now = self.caches.pods.get(&pod.key);
        if now.is_none_or(|now| now.metadata.uid != pod.pod.metadata.uid || now.metadata.deletion_timestamp.is_some()) {
            return;
        }
        tracing::warn!(pod = %pod.key, why, "a pod could not be bound; it is tried again");
        self.queue.retry(binding.taken, Instant::now());
        let executor = self.executor.clone();
        tokio::spawn(async move { executor.report_unscheduled(&pod, "SchedulerError", &why).await });
    }

    async fn attempt(&mut self, taken: Taken) {
        let start = Instant::now();
        let pod = taken.pod.clone();
        let surroundings = self.surroundings(&pod);
        if let Some(why) = surroundings.devices.as_ref().and_then(|facts| not_ready(&pod, facts)) {
            tracing::debug!(pod = %pod.key, why, "a pod waits for its claims");
            return self.queue.failed(taken, Instant::now());
        }
        let promised: Vec<(String, Arc<PodInfo>)> = self.nominated.values().cloned().collect();
        let outcome = match promised.is_empty() {
            true => {
                let nodes: Vec<&NodeInfo> = self.cache.nodes().collect();
                self.decide(&pod, &nodes, &surroundings)
            }
            false => {
                let mut copies: Vec<NodeInfo> = self.cache.nodes().cloned().collect();
                preemption::with_nominated(&mut copies, &promised, &pod);
                let nodes: Vec<&NodeInfo> = copies.iter().collect();
                self.decide(&pod, &nodes, &surroundings)
            }
        };
        self.metrics.decided(start.elapsed());
        match outcome {
            Outcome::Node(node) => self.bind(taken, node, &surroundings, start),
            Outcome::Unschedulable(failure) => {
                self.give_up(taken, &failure, &surroundings).await;
                self.metrics.attempted(&self.scheduler_name, Ended::Unschedulable, start.elapsed());
            }
        }
        self.status.heartbeat(Some(start.elapsed()));
    }

    fn decide(&self, pod: &PodInfo, nodes: &[&NodeInfo], surroundings: &Surroundings) -> Outcome {
        let cycle = Cycle { pod, nodes, surroundings };
        decide(&cycle, &self.plugins, |ties| rand::rng().random_range(0..ties))
    }

    /// Binds in the background: the pod's claims first, where they waited for its node.
    fn bind(&mut self, taken: Taken, node: String, surroundings: &Surroundings, began: Instant) {
        let info = self.cache.nodes().find(|info| info.name == node);
        let volumes = info.map(|info| volumes_for(&taken.pod, info, surroundings)).unwrap_or_default();
        let devices = info.zip(surroundings.devices.as_ref());
        let claims = devices.map(|(info, facts)| claim_plans(&taken.pod, info, facts)).unwrap_or_default();
        self.nominated.remove(&taken.pod.key);
        self.reserved.add(&volumes, &node);
        self.promised.add(&claims);
        self.cache.assume(&node, taken.pod.clone());
        let (executor, finished) = (self.executor.clone(), self.finished.clone());
        let claim_binder = self.claim_binder();
        let binder = VolumeBinder {
            client: executor.client.clone(),
            pods: self.caches.pods.clone(),
            claims: self.caches.storage.claims.clone(),
        };
        tokio::spawn(async move {
            let mut written = Vec::new();
            let work = async {
                claim_binder.bind(&taken.pod, &node, &claims, &mut written).await?;
                if !volumes.is_empty() {
                    binder.bind(&taken.pod, &node, &volumes).await?;
                }
                executor.bind(&taken.pod, &node).await.map_err(|error| error.to_string())
            };
            let result = work.await;
            if result.is_err() {
                claim_binder.unreserve(&taken.pod, &written).await;
            }
            // The receiver only goes away with the scheduler itself.
            let _ = finished.send(Binding { taken, volumes, claims, written, result, began }).await;
        });
    }

    fn claim_binder(&self) -> ClaimBinder {
        ClaimBinder {
            client: self.executor.client.clone(),
            claims: self.caches.devices.claims.clone(),
            recorder: self.executor.recorder.clone(),
            clock: self.executor.clock.clone(),
        }
    }

    async fn give_up(&mut self, taken: Taken, failure: &Failure, surroundings: &Surroundings) {
        let pod = taken.pod.clone();
        let nodes: Vec<&NodeInfo> = self.cache.nodes().collect();
        let budgets = self.caches.budgets.list();
        let found = preemption::find(&pod, &nodes, failure, surroundings, &self.plugins, &budgets);
        self.metrics.preempted(found.as_ref().map_or(0, |found| found.victims.len()));
        let useless = surroundings.devices.as_ref().and_then(|facts| to_give_back(&pod, &nodes, facts));
        if let Some(claim) = useless.filter(|_| failure.refused_by.contains("DynamicResources")) {
            let binder = self.claim_binder();
            tokio::spawn(async move { binder.give_back(&claim).await });
        }
        let message = match &found {
            Some(_) => failure.message(),
            None => format!("{} {}", failure.message(), preemption::unhelpful_text(failure)),
        };
        let message = if failure.verdicts.is_empty() { failure.message() } else { message };
        let executor = self.executor.clone();
        if let Some(found) = found {
            self.nominated.insert(pod.key.clone(), (found.node.clone(), pod.clone()));
            executor.preempt(&pod, &found.node, &found.victims).await;
        }
        tokio::spawn(async move { executor.report_unscheduled(&pod, "Unschedulable", &message).await });
        self.queue.failed(taken, Instant::now());
        tracing::debug!(waiting = self.queue.len(), refused_by = ?failure.refused_by, "a pod fits on no node");
    }

    /// What the plugins may look at, gathered only as far as the pod needs it.
    fn surroundings(&mut self, pod: &PodInfo) -> Surroundings {
        let mut surroundings = Surroundings::default();
        if pod.pod.spec.is_none() {
            return surroundings;
        }
        self.caches.storage.add_to(&mut surroundings, pod, &self.cache, &self.reserved);
        self.caches.devices.add_to(&mut surroundings, pod, &mut self.promised);
        let labels = |namespace: Arc<Namespace>| {
            (namespace.metadata.name.clone().unwrap_or_default(), namespace.metadata.labels.clone().unwrap_or_default())
        };
        surroundings.namespace_labels = self.caches.namespaces.list().into_iter().map(labels).collect();
        surroundings.default_spread_selectors = self.spread_selector(pod).into_iter().collect();
        surroundings
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
        let owners = pod.pod.metadata.owner_references.iter().flatten();
        let spread = ["ReplicaSet", "ReplicationController", "StatefulSet"];
        if owners.into_iter().any(|owner| owner.controller == Some(true) && spread.contains(&owner.kind.as_str())) {
            let shared = |(key, _): &(&String, &String)| !key.starts_with("statefulset.") && !key.starts_with("apps.");
            merged.extend(pod.labels().iter().filter(shared).map(|(key, value)| (key.clone(), value.clone())));
        }
        (!merged.is_empty()).then_some(merged)
    }
}

/// The names of the claims that were made for a pod: it waits for them.
fn claim_statuses(pod: &Pod) -> Option<&Vec<PodResourceClaimStatus>> {
    pod.status.as_ref()?.resource_claim_statuses.as_ref()
}

fn is_terminal(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Whether a node's change could make room: a heartbeat can't.
fn may_help(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    old.spec != new.spec || old.metadata.labels != new.metadata.labels || allocatable(old) != allocatable(new)
}
