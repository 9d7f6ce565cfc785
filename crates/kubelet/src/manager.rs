//! Pods from three sources (the API, the directory of static pods, checkpoints) and a worker for each of them.
//!
//! It runs nothing itself. Invariants: no pod is ended because a source has not been read yet; of two pods with the same
//! name, the second waits until the first is gone.

mod housekeeping;
mod mirrors;
mod resizes;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kedge_client::{Change, EventType, Informer};
use kedge_meta::ObjectKey;
use kube::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admit::{Room, admit};
use crate::agent::Agent;
use crate::checkpoint::Checkpoints;
use crate::spec;
use crate::static_pods::{DirectoryWatch, Scan, StaticPods};
use crate::status::Stop;
use crate::termination::Termination;
use crate::worker::{WorkerHandle, spawn_worker};

const RELIST_EVERY: Duration = Duration::from_secs(1);
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(10);
/// How long the API server has to answer before the pods on disk are taken.
const WAIT_FOR_API: Duration = Duration::from_secs(2);

/// The pods of this node, as the kubelet server sees them.
pub(crate) type PodTable = Arc<parking_lot::RwLock<HashMap<String, Arc<Pod>>>>;

pub(crate) struct Manager {
    agent: Arc<Agent>,
    client: Client,
    nodes: Informer<Node>,
    workers: HashMap<String, WorkerHandle>,
    api_pods: HashMap<String, Arc<Pod>>,
    static_pods: HashMap<String, Arc<Pod>>,
    mirrors: HashMap<(String, String), Arc<Pod>>,
    mirroring: mirrors::Guard,
    orphans: housekeeping::Orphans,
    /// Views of images that another life of the node agent left were looked for.
    views_swept: bool,
    checkpoints: Checkpoints,
    api_synced: bool,
    static_scanned: bool,
    table: PodTable,
    gone: mpsc::UnboundedSender<String>,
}

impl Manager {
    /// Runs until `shutdown`; the workers end with it, containers do not.
    pub(crate) async fn run(
        agent: Arc<Agent>,
        client: Client,
        pods: Informer<Pod>,
        nodes: Informer<Node>,
        table: PodTable,
        mut terminations: mpsc::Receiver<Termination>,
        shutdown: CancellationToken,
    ) {
        // Bounded by the number of workers: each sends once.
        let (gone, mut gone_workers) = mpsc::unbounded_channel();
        let (scans, mut scanned) = mpsc::channel(1);
        let (changed, mut changes) = mpsc::channel(16);
        let mut manager = Self {
            checkpoints: Checkpoints::new(agent.config.checkpoint_dir()),
            client,
            nodes,
            workers: HashMap::new(),
            api_pods: HashMap::new(),
            static_pods: HashMap::new(),
            mirrors: HashMap::new(),
            mirroring: mirrors::Guard::default(),
            orphans: housekeeping::Orphans::default(),
            views_swept: false,
            api_synced: false,
            static_scanned: agent.config.static_pod_path.is_none(),
            table,
            gone,
            agent: agent.clone(),
        };
        if let Some(directory) = agent.config.static_pod_path.clone() {
            tokio::spawn(watch_static_pods(agent.clone(), directory, scans, shutdown.clone()));
        }
        // A first look, so that no worker acts on an unknown state.
        let _ = agent.states.relist().await;
        tokio::spawn(relist(agent.clone(), changed, shutdown.clone()));
        if tokio::time::timeout(WAIT_FOR_API, pods.synced()).await.is_err() {
            manager.take_checkpoints();
            agent.pods_known.cancel();
        }
        let mut subscription = pods.subscribe();
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING_EVERY);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                change = subscription.next() => manager.api_change(change),
                () = pods.synced(), if !manager.api_synced => {
                    while let Some(change) = subscription.try_next() {
                        manager.api_change(change);
                    }
                    manager.api_is_synced(&pods);
                    agent.pods_known.cancel();
                }
                Some(scan) = scanned.recv() => manager.static_change(scan),
                Some(uid) = gone_workers.recv() => manager.worker_gone(&uid),
                Some(uids) = changes.recv() => manager.wake(&uids),
                Some(termination) = terminations.recv() => manager.terminate(termination),
                _ = housekeeping.tick() => manager.housekeeping(),
                // What could not be written meanwhile is written now, and not at the next turn.
                () = agent.failures.reached_again() => manager.reconcile_mirrors(),
            }
        }
    }

    fn wake(&self, uids: &[String]) {
        for worker in uids.iter().filter_map(|uid| self.workers.get(uid)) {
            worker.wake.notify_one();
        }
    }

    /// The node ends a pod.
    fn terminate(&self, termination: Termination) {
        let Some(worker) = self.workers.get(&termination.uid) else { return };
        worker.desired.send_modify(|desired| {
            desired.stop.get_or_insert_with(|| termination.stop.clone());
            desired.termination = Some(Arc::new(termination));
        });
    }

    fn take_checkpoints(&mut self) {
        let kept = self.checkpoints.load();
        if !kept.is_empty() {
            tracing::warn!(pods = kept.len(), "the API server does not answer; going on with the last known pods");
        }
        for pod in kept {
            let pod = Arc::new(pod);
            self.api_pods.insert(spec::uid(&pod).to_owned(), pod.clone());
            self.dispatch(pod);
        }
    }

    fn api_change(&mut self, change: Change<Pod>) {
        match change {
            Change::Added(pod) => self.api_pod(None, pod),
            Change::Updated { old, new } => {
                if old.metadata.uid != new.metadata.uid {
                    self.api_pod_gone(&old);
                }
                self.api_pod(Some(&old), new);
            }
            Change::Deleted(pod) => self.api_pod_gone(&pod),
        }
    }

    fn api_pod(&mut self, old: Option<&Pod>, pod: Arc<Pod>) {
        if spec::is_mirror(&pod) {
            self.mirror_seen(pod);
            return;
        }
        let uid = spec::uid(&pod).to_owned();
        if old.is_none_or(|old| worth_keeping(old, &pod)) {
            self.checkpoints.save(&pod);
        }
        self.api_pods.insert(uid.clone(), pod.clone());
        self.agent.statuses.observe(&uid, &pod);
        self.dispatch(pod);
    }

    fn api_pod_gone(&mut self, pod: &Arc<Pod>) {
        if spec::is_mirror(pod) {
            self.mirror_gone(pod);
            return;
        }
        let uid = spec::uid(pod);
        // The last state may hold a shorter grace period.
        if let Some(worker) = self.workers.get(uid) {
            worker.desired.send_modify(|desired| {
                desired.pod = pod.clone();
                desired.removed = true;
            });
        } else {
            self.checkpoints.remove(uid);
        }
        self.api_pods.remove(uid);
    }

    /// From now on, what the API does not have is to end.
    fn api_is_synced(&mut self, pods: &Informer<Pod>) {
        self.api_synced = true;
        let known: Vec<Arc<Pod>> = pods.list();
        let stale: Vec<Arc<Pod>> = self
            .api_pods
            .values()
            .filter(|pod| !known.iter().any(|known| known.metadata.uid == pod.metadata.uid))
            .cloned()
            .collect();
        for pod in stale {
            self.api_pod_gone(&pod);
        }
        self.reconcile_mirrors();
    }

    fn static_change(&mut self, scan: Scan) {
        for (path, problem) in &scan.problems {
            tracing::warn!(path = %path.display(), problem, "a static pod manifest is not used");
            let message = format!("static pod manifest {}: {problem}", path.display());
            self.agent.events.node(EventType::Warning, "FailedStaticPodManifest", message);
        }
        self.static_scanned = true;
        let now: HashMap<String, Arc<Pod>> =
            scan.pods.into_values().map(|pod| (spec::uid(&pod).to_owned(), pod)).collect();
        for uid in self.static_pods.keys().filter(|uid| !now.contains_key(*uid)) {
            if let Some(worker) = self.workers.get(uid) {
                worker.desired.send_modify(|desired| desired.removed = true);
            }
        }
        self.static_pods = now;
        self.dispatch_static();
        self.reconcile_mirrors();
    }

    fn dispatch_static(&mut self) {
        for pod in self.static_pods.values().cloned().collect::<Vec<_>>() {
            self.dispatch(pod);
        }
    }

    /// Hands a pod to its worker, which is started if there is none.
    fn dispatch(&mut self, pod: Arc<Pod>) {
        let uid = spec::uid(&pod).to_owned();
        if let Some(worker) = self.workers.get(&uid) {
            worker.desired.send_if_modified(|desired| {
                let news = worth_a_look(&desired.pod, &pod);
                desired.pod = pod.clone();
                news
            });
            self.table.write().insert(uid, pod.clone());
            self.consider_resize(&pod);
            return;
        }
        let same_name = |worker: &WorkerHandle| {
            let other = worker.desired.borrow().pod.clone();
            spec::name(&other) == spec::name(&pod) && spec::namespace(&other) == spec::namespace(&pod)
        };
        if spec::is_static(&pod) && self.workers.values().any(same_name) {
            return;
        }
        self.agent.allocations.recall(&uid);
        let refused = self.refuse(&pod).map(|stop| {
            self.agent.events.pod(&pod, EventType::Warning, &stop.reason, stop.message.clone());
            Stop { message: format!("Pod was rejected: {}", stop.message), ..stop }
        });
        if refused.is_none() && !self.agent.allocations.knows(&uid) {
            self.agent.allocations.grant(&pod);
        }
        let (gone, exited) = (self.gone.clone(), uid.clone());
        let worker = spawn_worker(self.agent.clone(), pod.clone(), refused, move || {
            // The manager goes only with the whole process.
            let _ = gone.send(exited);
        });
        self.table.write().insert(uid.clone(), pod.clone());
        self.workers.insert(uid, worker);
        self.consider_resize(&pod);
    }

    fn refuse(&self, pod: &Pod) -> Option<Stop> {
        let runs = !self.agent.states.get(spec::uid(pod)).containers.is_empty();
        let over = spec::is_terminal_phase(spec::pod_status(pod).phase.as_deref());
        if spec::is_static(pod) || runs || over || pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        if let Some(stop) = self.agent.pressures.refuse(pod) {
            return Some(stop);
        }
        let active = self.active_pods();
        let others: Vec<&Pod> = active.iter().map(Arc::as_ref).collect();
        let (config, room) = (&self.agent.config, self.room());
        let node = self.nodes.get(&ObjectKey::new("", &config.node_name));
        let labels = node.and_then(|node| node.metadata.labels.clone());
        // Before the node's labels are known, the scheduler's word counts.
        let labels = labels.or_else(|| spec::pod_spec(pod).node_selector.clone()).unwrap_or_default();
        let labels: Vec<(String, String)> = labels.into_iter().collect();
        admit(pod, &others, &room, &labels).err()
    }

    /// The pods that are not over, with what they were granted. What was deleted by force counts for nothing, although its
    /// containers may still end: the scheduler has given its place away.
    fn active_pods(&self) -> Vec<Arc<Pod>> {
        self.workers
            .iter()
            .filter(|(_, worker)| !worker.desired.borrow().removed)
            .filter(|(uid, _)| {
                !self.agent.statuses.get(uid).is_some_and(|status| spec::is_terminal_phase(status.phase.as_deref()))
            })
            .map(|(_, worker)| self.agent.allocations.granted(&worker.desired.borrow().pod))
            .filter(|pod| !spec::is_terminal_phase(spec::pod_status(pod).phase.as_deref()))
            .collect()
    }

    fn room(&self) -> Room {
        let (config, machine) = (&self.agent.config, &self.agent.machine);
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Room {
            max_pods: usize::try_from(config.max_pods).unwrap_or(usize::MAX),
            cpu_millis: machine.allocatable_cpu(config),
            memory: machine.allocatable_memory(config),
            ephemeral_storage: machine.allocatable_storage(config),
            hugepages: machine.hugepages.iter().map(|(name, amount)| (name.clone(), bytes(*amount))).collect(),
            unsafe_sysctls: config.allowed_unsafe_sysctls.clone(),
        }
    }

    fn worker_gone(&mut self, uid: &str) {
        self.workers.remove(uid);
        self.table.write().remove(uid);
        self.checkpoints.remove(uid);
        // Its file may have come back meanwhile, and a pod of the same name may wait.
        self.dispatch_static();
        if let Some(pod) = self.api_pods.get(uid).cloned() {
            self.dispatch(pod);
        }
        self.reconsider_resizes();
    }
}

/// Whether a change asks the worker for anything: its own reports come back as changes too.
fn worth_a_look(old: &Pod, new: &Pod) -> bool {
    let (before, after) = (&old.metadata, &new.metadata);
    let gates = |pod: &Pod| {
        let conditions = spec::pod_status(pod).conditions.clone().unwrap_or_default();
        let gates = spec::pod_spec(pod).readiness_gates.clone().unwrap_or_default();
        let wanted = |type_: &str| gates.iter().any(|gate| gate.condition_type == type_);
        conditions.into_iter().filter(|condition| wanted(&condition.type_)).collect::<Vec<_>>()
    };
    old.spec != new.spec
        || before.deletion_timestamp != after.deletion_timestamp
        || before.deletion_grace_period_seconds != after.deletion_grace_period_seconds
        || before.labels != after.labels
        || before.annotations != after.annotations
        || before.generation != after.generation
        || gates(old) != gates(new)
}

/// Whether a change of a pod matters to a kubelet that starts later.
fn worth_keeping(old: &Pod, new: &Pod) -> bool {
    let ready = |pod: &Pod| {
        let statuses = spec::pod_status(pod).container_statuses.clone().unwrap_or_default();
        statuses.into_iter().map(|status| (status.container_id, status.ready, status.restart_count)).collect::<Vec<_>>()
    };
    old.spec != new.spec
        || old.metadata.uid != new.metadata.uid
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || old.metadata.labels != new.metadata.labels
        || old.metadata.annotations != new.metadata.annotations
        || spec::pod_status(old).phase != spec::pod_status(new).phase
        || ready(old) != ready(new)
}

async fn relist(agent: Arc<Agent>, changed: mpsc::Sender<Vec<String>>, shutdown: CancellationToken) {
    let mut failing = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RELIST_EVERY) => {}
        }
        let began = tokio::time::Instant::now();
        match agent.states.relist().await {
            Ok(uids) => {
                agent.metrics.relisted(began, agent.now());
                failing = false;
                if !uids.is_empty() && changed.send(uids).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "failed to list what the container runtime has");
                }
                failing = true;
            }
        }
    }
}

async fn watch_static_pods(
    agent: Arc<Agent>,
    directory: PathBuf,
    scans: mpsc::Sender<Scan>,
    shutdown: CancellationToken,
) {
    if let Err(error) = std::fs::create_dir_all(&directory) {
        tracing::warn!(directory = %directory.display(), %error, "failed to make the directory of static pods");
    }
    let mut watch = DirectoryWatch::new(&directory);
    let mut pods = StaticPods::new(directory, &agent.config.node_name);
    loop {
        let scan = pods.scan(agent.now());
        if scans.send(scan).await.is_err() {
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = watch.changed() => {}
        }
    }
}
