//! The loop: changes of nodes and pods become keys; a key is planned, and its step is taken. Leases turn beside it.
//!
//! Invariants: nothing is planned from a cache that does not show the last write to the object yet; without the API
//! everything stays as it is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kedge_client::{Change, Client, FailureLog, Informer, Queue, Subscription, object_key};
use kedge_meta::{Clock, ComponentState, ComponentStatus, ObjectKey};
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::addresses::Pool;
use crate::annotations::NodeScript;
use crate::config::{Config, Deps};
use crate::fill::fill;
use crate::leases::{TICK, Wheel, renew};
use crate::node::{internal_ip, missing_labels, report_due, status_patch as node_status_patch};
use crate::pod::{Addresses, Step, Turn, plan};
use crate::requests::{is_race, patch_node, patch_node_status, patch_pod_status, remove_pod};
use crate::status_patch::status_patch;

/// How many nodes and pods are in work at a time.
const WORKERS: usize = 64;
const HEARTBEAT: Duration = Duration::from_secs(30);
const LEASES: &str = "renew the leases of simulated nodes";

struct Simulation {
    config: Config,
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    clock: Arc<dyn Clock>,
    failures: FailureLog,
    status: ComponentStatus,
    wheel: Wheel,
    node_addresses: Mutex<Pool>,
    pod_addresses: Mutex<Pool>,
    /// The versions of objects that were written and are not in the cache yet.
    written: Mutex<HashMap<ObjectKey, u64>>,
    queue: Queue<ObjectKey>,
}

/// Simulates until `shutdown`. What was made stays when it ends, and goes on when it is run again.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) {
    let simulation = Simulation {
        config,
        nodes: deps.informers.all(),
        pods: deps.informers.all(),
        failures: deps.informers.failures().clone(),
        client: deps.client,
        clock: deps.clock,
        status: deps.status,
        wheel: Wheel::new(),
        node_addresses: Mutex::new(Pool::for_nodes()),
        pod_addresses: Mutex::new(Pool::for_pods()),
        written: Mutex::default(),
        queue: Queue::new(),
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = simulation.serve() => {}
    }
}

impl Simulation {
    async fn serve(&self) {
        self.nodes.synced().await;
        self.pods.synced().await;
        let mut nodes = self.nodes.subscribe();
        // Addresses in use are known before any is given out, and nodes before their pods.
        self.pods.list().iter().for_each(|pod| self.note_pod(pod));
        while let Some(change) = nodes.try_next() {
            self.note_node(&change);
        }
        tokio::join!(
            self.follow_nodes(nodes),
            self.follow_pods(),
            self.turn_the_wheel(),
            self.fill(),
            join_all((0..WORKERS).map(|_| self.work())),
        );
    }

    async fn fill(&self) {
        let (nodes, pods) = (self.config.nodes, self.config.pods);
        let text = format!("making {nodes} nodes and {pods} pods, as far as they are missing");
        self.status.set(ComponentState::Starting, "MakingObjects", text);
        fill(&self.client, &self.config, &self.nodes, &self.pods).await;
        self.status.running();
        loop {
            self.status.heartbeat(None);
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    async fn follow_nodes(&self, mut changes: Subscription<Node>) {
        loop {
            let change = changes.next().await;
            self.note_node(&change);
            let acts = |node: &Node| NodeScript::of(node).acts();
            let begins = match &change {
                Change::Added(node) => acts(node),
                Change::Updated { old, new } => !acts(old) && acts(new),
                Change::Deleted(_) => false,
            };
            if begins {
                let pods = self.pods.on_node(change.object().metadata.name.as_deref().unwrap_or_default());
                pods.iter().for_each(|pod| self.queue.add(object_key(&**pod)));
            }
        }
    }

    fn note_node(&self, change: &Change<Node>) {
        let node = change.object();
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let mut addresses = self.node_addresses.lock();
        if matches!(change, Change::Deleted(_)) {
            self.wheel.remove(name);
            addresses.take_back(name, internal_ip(node));
            self.written.lock().remove(&object_key(&**node));
            return;
        }
        if let Some(address) = internal_ip(node) {
            addresses.seen(name, address);
        }
        match NodeScript::of(node).acts() {
            true => self.queue.add(object_key(&**node)),
            false => self.wheel.remove(name),
        }
    }

    async fn follow_pods(&self) {
        let mut changes = self.pods.subscribe();
        loop {
            let change = changes.next().await;
            let pod = change.object();
            if matches!(change, Change::Deleted(_)) {
                let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
                self.pod_addresses.lock().take_back(uid(pod), ip);
                self.written.lock().remove(&object_key(&**pod));
                continue;
            }
            self.note_pod(pod);
            if node_of(pod).is_some_and(|node| self.node_that_acts(node).is_some()) {
                self.queue.add(object_key(&**pod));
            }
        }
    }

    fn note_pod(&self, pod: &Pod) {
        if let Some(ip) = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()) {
            self.pod_addresses.lock().seen(uid(pod), ip);
        }
    }

    fn node_that_acts(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes.get(&ObjectKey::cluster(name)).filter(|node| NodeScript::of(node).acts())
    }

    /// Each node renews at its turn, unless its last renewal is still on its way: a slow server makes nobody else late.
    async fn turn_the_wheel(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut renewals, mut busy) = (FuturesUnordered::new(), HashSet::new());
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    for name in self.wheel.turn() {
                        if let Some(node) = self.node_that_acts(&name).filter(|_| busy.insert(name.clone())) {
                            renewals.push(async move { (name, renew(&self.client, &node, self.clock.now()).await) });
                        }
                    }
                }
                Some((name, result)) = renewals.next() => {
                    busy.remove(&name);
                    match result {
                        Err(error) => drop(self.failures.failed(LEASES, &error)),
                        Ok(()) => self.failures.succeeded(LEASES),
                    }
                }
            }
        }
    }

    async fn work(&self) {
        loop {
            let key = self.queue.next().await;
            // Nodes have no namespace and pods have one, so that one queue serves both.
            let result = match key.namespace.is_empty() {
                true => self.reconcile_node(&key).await,
                false => self.reconcile_pod(&key).await,
            };
            match result {
                Ok(due) => {
                    self.queue.forget(&key);
                    if let Some(due) = due {
                        self.queue.add_after(key.clone(), until(due, self.clock.now()));
                    }
                }
                Err(error) if is_race(&error) => self.queue.forget(&key),
                Err(error) => {
                    tracing::debug!(%key, %error, "a simulated object could not be written; trying again");
                    self.queue.retry(key.clone());
                }
            }
            self.queue.done(&key);
        }
    }

    /// Whether the cache shows what was last written to an object. If not, a change is about to come.
    fn is_current(&self, key: &ObjectKey, version: Option<&str>) -> bool {
        let mut written = self.written.lock();
        let Some(last) = written.get(key) else { return true };
        let is_current =
            version.and_then(|version| version.parse::<u64>().ok()).is_some_and(|version| version >= *last);
        if is_current {
            written.remove(key);
        }
        is_current
    }

    async fn reconcile_node(&self, key: &ObjectKey) -> Result<Option<Timestamp>, kube::Error> {
        let Some(node) = self.node_that_acts(&key.name) else { return Ok(None) };
        if !self.is_current(key, node.metadata.resource_version.as_deref()) {
            return Ok(None);
        }
        let now = self.clock.now();
        if let Some(patch) = missing_labels(&node) {
            let version = patch_node(&self.client, &key.name, patch).await?;
            self.written.lock().insert(key.clone(), version);
            return Ok(None);
        }
        // On the wheel only once it has a lease: it is asked for at once, not at its turn.
        renew_first(&self.client, &self.wheel, &node, now).await?;
        let address = match internal_ip(&node) {
            Some(address) => address.to_owned(),
            None => self.node_addresses.lock().give(&key.name).map(|ip| ip.to_string()).unwrap_or_default(),
        };
        if let Some(patch) = node_status_patch(&node, &self.config, &address, now) {
            let version = patch_node_status(&self.client, &key.name, patch).await?;
            self.written.lock().insert(key.clone(), version);
            return Ok(None);
        }
        Ok(report_due(&node))
    }

    async fn reconcile_pod(&self, key: &ObjectKey) -> Result<Option<Timestamp>, kube::Error> {
        let Some(pod) = self.pods.get(key) else { return Ok(None) };
        let Some(node) = node_of(&pod).and_then(|name| self.node_that_acts(name)) else { return Ok(None) };
        if !self.is_current(key, pod.metadata.resource_version.as_deref()) {
            return Ok(None);
        }
        if !self.config.start_pods && pod.metadata.deletion_timestamp.is_none() {
            return Ok(None);
        }
        // A node says its address with its first status; until then its pods wait for that change.
        let Some(node_ip) = internal_ip(&node) else { return Ok(soon(self.clock.now())) };
        let known = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        let pod_ip = known.or_else(|| self.pod_addresses.lock().give(uid(&pod)).map(|ip| ip.to_string()));
        let addresses = Addresses { pod: pod_ip.as_deref().unwrap_or_default(), node: node_ip };
        let Turn { step, due } = plan(&pod, addresses, self.clock.now());
        match step {
            Step::Nothing => Ok(due),
            Step::Remove => remove_pod(&self.client, key, pod.metadata.uid.as_deref()).await.map(|()| None),
            Step::Write(status) => {
                let before = pod.status.clone().unwrap_or_default();
                let patch = status_patch(pod.metadata.uid.as_deref(), &before, &status);
                let version = patch_pod_status(&self.client, key, patch).await?;
                self.written.lock().insert(key.clone(), version);
                Ok(due)
            }
        }
    }
}

async fn renew_first(client: &Client, wheel: &Wheel, node: &Node, now: Timestamp) -> Result<(), kube::Error> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    if !wheel.add(name) {
        return Ok(());
    }
    let result = renew(client, node, now).await;
    if result.is_err() {
        wheel.remove(name);
    }
    result
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn until(due: Timestamp, now: Timestamp) -> Duration {
    now.duration_until(due).try_into().unwrap_or_default()
}

/// After a moment.
fn soon(now: Timestamp) -> Option<Timestamp> {
    Some(now + Duration::from_millis(200))
}
