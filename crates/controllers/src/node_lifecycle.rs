//! The node lifecycle controller: notices that a node fell silent, says so in its conditions, and taints it so that
//! nothing new comes and what is there leaves.
//!
//! A node is looked at when it changes and when its patience would run out, not by the clock. Invariant: a node counts as
//! silent only by this process's own clock since it last heard of it, whatever the node's clock says.

mod health;
mod zones;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, ObjectReference, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kedge_client::{Change, Informer, InformerOptions, Queue, object_key, object_reference};
use kedge_meta::ObjectKey;
use kube::api::{Api, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::error::{ReconcileError, unless_gone};
use crate::pods::{is_ready, name_of};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use health::{Eviction, Readiness, needs_eviction, plan_silence, plan_taints, readiness, time_left};
use zones::{Buckets, Census, eviction_rate, zone_key};

const LEASES: &str = "kube-node-lease";

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let nodes = starter.informer::<Node>();
    let pods = starter.informer::<Pod>();
    let options = InformerOptions { namespace: Some(LEASES.to_owned()), ..InformerOptions::default() };
    let leases = starter.context.informers.select::<Lease>(options);
    starter.wait_for(&leases);
    let queue = Queue::new();
    let context = starter.context.clone();
    let began = (context.now(), Instant::now());
    let controller = Arc::new(Lifecycle { context, nodes: nodes.clone(), pods, state: Mutex::default(), began });
    let shown = controller.clone();
    let write = move |text: &mut _| zones::write(text, &shown.state.lock().census);
    starter.context.metrics.show("node-lifecycle-controller", write);
    let of_nodes = controller.clone();
    starter.enqueue(&nodes, &queue, move |change| of_nodes.hear_node(change));
    let of_leases = controller.clone();
    starter.feed(&leases, move |change| of_leases.hear_lease(change));
    // One worker: the zones' tokens are given out in one order.
    starter.work(controller, queue, 1);
}

/// What was last heard of a node.
#[derive(Debug, Default)]
struct Heard {
    at: Option<Timestamp>,
    renewed: Option<MicroTime>,
    conditions: Option<(Option<Time>, Option<Time>)>,
    /// The node fell silent while it was ready, and its pods do not all say so yet.
    has_ready_pods: bool,
}

#[derive(Debug, Default)]
struct State {
    heard: HashMap<String, Heard>,
    census: Census,
    /// How fast pods may be driven off, by zone, when nodes were last queued for it.
    rates: BTreeMap<String, Option<f64>>,
    buckets: Buckets,
    was_suspended: bool,
}

struct Lifecycle {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    state: Mutex<State>,
    /// When this term began, by both clocks.
    began: (Timestamp, Instant),
}

impl Controller for Lifecycle {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(node) = self.nodes.get(key) else { return Ok(Next::Done) };
        let (now, began) = (self.context.now(), Instant::now());
        self.context.metrics.evictions().zone(&zone_key(&node));
        let config = &self.context.config;
        let steady = self.steady_now();
        let heard = self.state.lock().heard.get(&key.name).and_then(|heard| heard.at).unwrap_or(steady);
        let left = time_left(&node, heard, config.node_monitor_grace_period, config.node_startup_grace_period, steady);
        let mut current = (*node).clone();
        if left.is_none()
            && let Some(conditions) = plan_silence(&node, now)
        {
            current = self.write_conditions(key, &node, conditions).await?;
            if readiness(&node) == Readiness::True {
                self.note_loss(key, &node);
            }
        }
        self.mark_pods(key, &current).await?;
        let look_again = self.taint(key, &current, now).await?;
        self.context.metrics.evictions().node_seen(began.elapsed());
        Ok(Next::Done.sooner(left).sooner(look_again))
    }
}

impl Lifecycle {
    /// A time that passes evenly: a wall clock that is set must not make nodes look silent.
    fn steady_now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.began.1.elapsed()).unwrap_or_default();
        self.began.0.saturating_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// Notes what a change of a node says; the nodes that have to be looked at.
    fn hear_node(&self, change: &Change<Node>) -> Vec<ObjectKey> {
        let mut concerned = self.count(change);
        if self.hear(change) {
            concerned.push(object_key(&**change.object()));
        }
        concerned
    }

    /// Counts a node in its zone; the nodes that are not well where others may be driven off at another speed now.
    fn count(&self, change: &Change<Node>) -> Vec<ObjectKey> {
        let mut state = self.state.lock();
        match change {
            Change::Deleted(node) => state.census.remove(name_of(&node.metadata)),
            change => state.census.set(change.object()),
        }
        let rates = state.census.rates(&self.context.config);
        if rates == state.rates {
            return Vec::new();
        }
        state.rates = rates;
        state.census.unwell().map(ObjectKey::cluster).collect()
    }

    /// Notes what a node says of itself; whether it has to be looked at.
    fn hear(&self, change: &Change<Node>) -> bool {
        let node = change.object();
        let name = name_of(&node.metadata).to_owned();
        let about = node_reference(node);
        if matches!(change, Change::Deleted(_)) {
            self.state.lock().heard.remove(&name);
            let text = format!("Node {name} event: Removing Node {name} from Controller");
            self.context.normal(&about, "RemovingNode", text);
            return false;
        }
        let now = self.steady_now();
        let ready = health::condition(node, "Ready");
        let said = ready.map(|ready| (ready.last_heartbeat_time.clone(), ready.last_transition_time.clone()));
        let mut state = self.state.lock();
        let heard = state.heard.entry(name.clone()).or_default();
        // What this controller writes about a silent node is no sign of life.
        let is_kubelets = ready.is_none_or(|ready| ready.status != "Unknown");
        if heard.at.is_none() || is_kubelets && heard.conditions != said {
            heard.at = Some(now);
        }
        heard.conditions = said;
        drop(state);
        if matches!(change, Change::Added(_)) {
            let text = format!("Node {name} event: Registered Node {name} in Controller");
            self.context.normal(&about, "RegisteredNode", text);
        }
        match change {
            Change::Updated { old, new } => is_relevant(old, new),
            _ => true,
        }
    }

    fn hear_lease(&self, change: &Change<Lease>) {
        let lease = change.object();
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        if matches!(change, Change::Deleted(_)) || renewed.is_none() {
            return;
        }
        let now = self.steady_now();
        let mut state = self.state.lock();
        let heard = state.heard.entry(name_of(&lease.metadata).to_owned()).or_default();
        if heard.renewed != renewed {
            heard.renewed = renewed;
            heard.at = Some(now);
        }
    }

    async fn write_conditions(
        &self,
        key: &ObjectKey,
        node: &Node,
        conditions: Vec<NodeCondition>,
    ) -> Result<Node, ReconcileError> {
        let mut changed = node.clone();
        changed.status.get_or_insert_default().conditions = Some(conditions);
        let nodes = Api::<Node>::all(self.context.client.clone());
        tracing::warn!(node = key.name, "the node is silent; its conditions are unknown now");
        Ok(nodes.replace_status(&key.name, &PostParams::default(), &changed).await?)
    }

    /// Says that a node was lost. A kubelet that reports itself as not ready sees to its pods and to the event itself.
    fn note_loss(&self, key: &ObjectKey, node: &Node) {
        let text = format!("Node {} status is now: NodeNotReady", key.name);
        self.context.normal(&node_reference(node), "NodeNotReady", text);
        if let Some(heard) = self.state.lock().heard.get_mut(&key.name) {
            heard.has_ready_pods = true;
        }
    }

    /// Takes the pods of a lost node out of Services, unless it came back meanwhile.
    async fn mark_pods(&self, key: &ObjectKey, node: &Node) -> Result<(), ReconcileError> {
        if !self.state.lock().heard.get(&key.name).is_some_and(|heard| heard.has_ready_pods) {
            return Ok(());
        }
        if readiness(node) != Readiness::True {
            self.mark_pods_not_ready(key).await?;
        }
        if let Some(heard) = self.state.lock().heard.get_mut(&key.name) {
            heard.has_ready_pods = false;
        }
        Ok(())
    }

    async fn mark_pods_not_ready(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let pods = self.pods.on_node(&key.name);
        for pod in pods.iter().filter(|pod| is_ready(pod)) {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let api = Api::<Pod>::namespaced(self.context.client.clone(), namespace);
            let patch = json!({
                "metadata": { "uid": pod.metadata.uid },
                "status": { "conditions": [{
                    "type": "Ready", "status": "False",
                    "lastTransitionTime": kedge_meta::format_time(self.context.now()),
                }] },
            });
            let name = name_of(&pod.metadata);
            let result = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            if unless_gone(result)?.is_some() {
                self.context.warning(&object_reference(&**pod), "NodeNotReady", "Node is not ready");
            }
        }
        Ok(())
    }

    /// Writes the taints that the node should have, and says when to look again because a token was missing.
    async fn taint(
        &self,
        key: &ObjectKey,
        node: &Node,
        now: Timestamp,
    ) -> Result<Option<std::time::Duration>, ReconcileError> {
        let (eviction, wait) = self.eviction(node, now);
        let Some(taints) = plan_taints(node, eviction, now) else { return Ok(wait) };
        self.write_taints(key, node, &taints).await?;
        if eviction == Eviction::Allowed {
            self.context.metrics.evictions().node(&zone_key(node));
        }
        Ok(wait)
    }

    fn eviction(&self, node: &Node, now: Timestamp) -> (Eviction, Option<std::time::Duration>) {
        if readiness(node) == Readiness::True {
            return (Eviction::Held, None);
        }
        let config = &self.context.config;
        let zone = zone_key(node);
        let mut state = self.state.lock();
        // It may be newer than what was last heard.
        state.census.set(node);
        let rate = eviction_rate(&state.census.states(config.unhealthy_zone_threshold), &zone, config);
        if rate.is_none() != state.was_suspended {
            state.was_suspended = rate.is_none();
            match rate {
                None if !state.census.was_any_ready() => tracing::debug!("no node has been ready yet"),
                None => tracing::warn!("no node is ready: suspecting our own view, evictions are suspended"),
                Some(_) => tracing::info!("a node is ready again: evictions resume"),
            }
        }
        match (rate, needs_eviction(node)) {
            (None, _) => (Eviction::Suspended, None),
            (Some(_), false) => (Eviction::Held, None),
            (rate, true) => {
                let (eviction, wait) = state.buckets.take(&zone, rate, now);
                // A zone without evictions is looked at as often as upstream does.
                (eviction, wait.or((eviction == Eviction::Held).then_some(config.node_monitor_period)))
            }
        }
    }

    async fn write_taints(&self, key: &ObjectKey, node: &Node, taints: &[Taint]) -> Result<(), ReconcileError> {
        let nodes = Api::<Node>::all(self.context.client.clone());
        let patch = json!({
            "metadata": { "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": taints },
        });
        unless_gone(nodes.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(())
    }
}

/// Whether an update changes anything but heartbeats.
fn is_relevant(old: &Node, new: &Node) -> bool {
    fn states(node: &Node) -> Vec<(&str, &str)> {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        conditions.map(|condition| (condition.type_.as_str(), condition.status.as_str())).collect()
    }
    old.spec != new.spec || old.metadata.labels != new.metadata.labels || states(old) != states(new)
}

/// Upstream's reference to a node in events carries the node's name as its uid nowhere but here: the real uid.
fn node_reference(node: &Node) -> ObjectReference {
    ObjectReference { namespace: None, ..object_reference(node) }
}
