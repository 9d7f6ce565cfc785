//! The Node object: registration, status and lease.
//!
//! Invariant: the node reports at least every five minutes, at once when a condition changes, and renews its lease every
//! ten seconds whatever else goes on.

mod conditions;
mod lease;
mod object;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeCondition, NodeStatus};
use kedge_client::{Backoff, EventType, Informer};
use kedge_meta::{ComponentStatus, ObjectKey};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::agent::Agent;
use crate::device_work;
use crate::eviction::Pressure;
pub(crate) use conditions::Health;
use lease::LONGEST_RETRY;
pub(crate) use lease::renew_lease;

/// By then the cache shows what was reported last.
const CACHE_LAG: Duration = Duration::from_secs(2);
const REPORT: &str = "report the status of the node";
const REGISTER: &str = "register the node";
const CHECK_EVERY: Duration = Duration::from_secs(10);
const REPORT_AT_LEAST_EVERY: Duration = Duration::from_secs(300);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Relisting that takes longer than this makes the node not ready.
const RELIST_THRESHOLD: Duration = Duration::from_secs(180);
const MAX_IMAGES: usize = 50;

/// Decides, beside the runtime, whether the network of pods is ready.
pub type NetworkReady = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Keeps the Node object up to date until the task is dropped.
pub(crate) struct NodeReporter {
    pub(crate) agent: Arc<Agent>,
    pub(crate) client: Client,
    pub(crate) nodes: Informer<Node>,
    pub(crate) network_ready: Option<NetworkReady>,
    pub(crate) component: ComponentStatus,
    /// The last status that the API took.
    pub(crate) reported: Option<(NodeStatus, Instant)>,
    pub(crate) runtime_version: String,
    /// The range of pod addresses that the runtime knows.
    pub(crate) passed_cidr: Option<String>,
    /// Whether the node took pods when that was last told of.
    pub(crate) schedulable: bool,
}

impl NodeReporter {
    pub(crate) async fn run(mut self) {
        self.agent.events.node(EventType::Normal, "Starting", "Starting kubelet.");
        if self.agent.config.register_node {
            self.register().await;
        }
        loop {
            self.pass_pod_cidr().await;
            self.tell_schedulable();
            let health = self.health().await;
            *self.agent.network.lock() = health.network.clone();
            let ready = health.not_ready().is_none();
            match self.report(&health).await {
                Err(error) => self.tell(&error, REPORT),
                Ok(asked) => {
                    if asked {
                        self.agent.failures.succeeded(REPORT);
                    }
                    match (health.not_ready(), self.agent.failures.unreachable()) {
                        (None, None) => self.component.running(),
                        (Some(message), _) => self.component.degraded("KubeletNotReady", message),
                        // What was said when the server was last asked still holds.
                        (None, Some(_)) => {}
                    }
                }
            }
            // A node that is not ready yet looks more often, so that it becomes ready soon after the network does.
            let pause = if ready { CHECK_EVERY } else { Duration::from_millis(250) };
            tokio::select! {
                () = self.pause(pause) => {}
                () = self.agent.pressures.changed() => {}
                () = self.agent.devices.changed() => {}
            }
        }
    }

    /// The runtime may write its network configuration from the node's range of pod addresses.
    async fn pass_pod_cidr(&mut self) {
        let node = self.nodes.get(&ObjectKey::new("", &self.agent.config.node_name));
        let assigned = node.and_then(|node| pod_cidrs(&node));
        let Some(cidr) = assigned.or_else(|| self.agent.config.pod_cidr.clone()) else { return };
        if self.passed_cidr.as_ref() == Some(&cidr) {
            return;
        }
        match self.agent.runtime.update_pod_cidr(&cidr).await {
            Ok(()) => self.passed_cidr = Some(cidr),
            Err(error) => tracing::warn!(%error, cidr, "failed to tell the runtime the range of pod addresses"),
        }
    }

    /// That somebody cordoned the node, or uncordoned it: whoever looks at a reboot knows by it that it was meant.
    fn tell_schedulable(&mut self) {
        let name = &self.agent.config.node_name;
        let Some(node) = self.nodes.get(&ObjectKey::new("", name)) else { return };
        let schedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable) != Some(true);
        if let Some(reason) = conditions::schedulable(self.schedulable, schedulable) {
            self.agent.events.node(EventType::Normal, reason, conditions::is_now(name, reason));
        }
        self.schedulable = schedulable;
    }

    fn tell(&self, error: &kube::Error, what: &str) {
        let cause = self.agent.failures.failed(what, error);
        self.component.degraded("ApiServerUnavailable", format!("failed to {what} ({cause}): {error}"));
    }

    async fn register(&mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(200), LONGEST_RETRY);
        loop {
            let health = self.health().await;
            *self.agent.network.lock() = health.network.clone();
            let status = self.status(&health, None).await;
            match self.try_register(status).await {
                Ok(()) => return self.agent.failures.succeeded(REGISTER),
                Err(error) => self.tell(&error, REGISTER),
            }
            self.pause(backoff.next_delay()).await;
        }
    }

    /// Waits, but no longer than the API server is away: it is told first what became of its node.
    async fn pause(&self, longest: Duration) {
        // It may time out, which is what it waits for at most.
        let _ = tokio::time::timeout(longest, self.agent.failures.reached_again()).await;
    }

    async fn try_register(&mut self, status: NodeStatus) -> Result<(), kube::Error> {
        let api = Api::<Node>::all(self.client.clone());
        let node = object::new_node(&self.agent.config, status);
        let name = self.agent.config.node_name.clone();
        match in_time(api.create(&PostParams::default(), &node)).await {
            Ok(_) => {
                tracing::info!(node = name, "the node is registered");
                Ok(())
            }
            Err(kube::Error::Api(answer)) if answer.code == 409 => {
                let known = in_time(api.get(&name)).await?;
                let Some(patch) = object::reconcile(&known, &node) else { return Ok(()) };
                in_time(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))).await.map(|_| ())
            }
            Err(error) => Err(error),
        }
    }

    /// What the runtime, the machine and the network component say.
    async fn health(&mut self) -> Health {
        let agent = self.agent.clone();
        let mut health = Health { listed: recently_listed(&agent), ..Health::default() };
        match agent.runtime.status(false).await {
            Ok(answer) => {
                health.read_runtime(answer.status.as_ref());
                *agent.handlers.lock() = answer.runtime_handlers;
                *agent.features.lock() = answer.features;
            }
            Err(error) => health.runtime = Some(format!("container runtime is down: {error}")),
        }
        if self.runtime_version.is_empty()
            && let Ok(version) = agent.runtime.version().await
        {
            self.runtime_version = format!("{}://{}", version.runtime_name, version.runtime_version);
        }
        if health.network.is_none()
            && let Some(Err(message)) = self.network_ready.as_ref().map(|check| check())
        {
            health.network = Some(message);
        }
        health.memory_pressure = agent.pressures.has(Pressure::Memory);
        health.disk_pressure = agent.pressures.has(Pressure::Disk);
        health.pid_pressure = agent.pressures.has(Pressure::Pid);
        health
    }

    async fn status(&self, health: &Health, before: Option<&NodeStatus>) -> NodeStatus {
        let now = self.agent.now();
        let known = before.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let mut status = object::status(&self.agent.config, &self.agent.machine, &self.runtime_version);
        let (capacity, allocatable) =
            (status.capacity.get_or_insert_default(), status.allocatable.get_or_insert_default());
        device_work::add_amounts(&self.agent, capacity, allocatable);
        status.conditions = Some(conditions::conditions(health, known, now));
        status.runtime_handlers = object::runtime_handlers(&self.agent.handlers.lock());
        status.features = object::features(self.agent.features.lock().as_ref());
        status.images = self.images().await;
        status.volumes_in_use = Some(self.agent.volumes.in_use()).filter(|volumes| !volumes.is_empty());
        status
    }

    async fn images(&self) -> Option<Vec<ContainerImage>> {
        let mut images = self.agent.runtime.list_images(None).await.ok()?;
        images.sort_by_key(|image| std::cmp::Reverse(image.size));
        let listed = images.into_iter().take(MAX_IMAGES).map(|image| {
            let mut names = image.repo_digests;
            names.extend(image.repo_tags);
            names.truncate(5);
            ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
        });
        Some(listed.collect())
    }

    /// Whether somebody else has set a condition of ours: the control plane does so where it has not heard of the node.
    fn is_overruled(&self, api: Option<&NodeStatus>) -> bool {
        let (Some((reported, at)), Some(api)) = (&self.reported, api) else { return false };
        at.elapsed() >= CACHE_LAG && object::is_overruled(reported, api)
    }

    /// Reports what changed, or everything now and then. Whether the API server was asked, and so is there.
    async fn report(&mut self, health: &Health) -> Result<bool, kube::Error> {
        let mut asked = false;
        let name = self.agent.config.node_name.clone();
        let key = ObjectKey::new("", &name);
        let known = self.nodes.get(&key);
        if known.is_none() && self.nodes.is_synced() && self.agent.config.register_node {
            // Somebody deleted the Node; it is registered again.
            let status = self.status(health, None).await;
            self.try_register(status).await?;
            asked = true;
        }
        let api = known.as_ref().and_then(|node| node.status.clone());
        let overruled = self.is_overruled(api.as_ref());
        let reported = self.reported.as_ref().filter(|_| !overruled).map(|(status, _)| status.clone());
        let before = reported.or(api);
        let status = self.status(health, before.as_ref()).await;
        let known = before.as_ref().and_then(|status| status.conditions.as_deref());
        let changes = conditions::changes(&name, known, &status);
        let reboot = conditions::reboot(&name, before.as_ref(), &status);
        let due = self.reported.as_ref().is_none_or(|(_, at)| at.elapsed() >= REPORT_AT_LEAST_EVERY);
        let same = self.reported.as_ref().is_some_and(|(known, _)| object::same_but_heartbeat(known, &status));
        if same && !due && !overruled {
            return Ok(asked);
        }
        let patch = status_patch(before.as_ref(), &status);
        let api = Api::<Node>::all(self.client.clone());
        in_time(api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))).await?;
        if let Some(message) = reboot {
            self.agent.events.node(EventType::Warning, "Rebooted", message);
        }
        for (reason, message) in changes {
            self.agent.events.node(EventType::Normal, &reason, message);
        }
        self.reported = Some((status, Instant::now()));
        Ok(true)
    }
}

/// All ranges of a node in one text, as runtimes are told them.
fn pod_cidrs(node: &Node) -> Option<String> {
    let spec = node.spec.as_ref()?;
    let listed = spec.pod_cidrs.as_ref().filter(|cidrs| !cidrs.is_empty()).map(|cidrs| cidrs.join(","));
    listed.or_else(|| spec.pod_cidr.clone())
}

fn recently_listed(agent: &Agent) -> Result<(), String> {
    match agent.states.last_listed() {
        None => Err("PLEG is not healthy: pleg has yet to be successful".to_owned()),
        Some(at) if at.elapsed() > RELIST_THRESHOLD => Err(format!(
            "PLEG is not healthy: pleg was last seen active {} ago; threshold is 3m0s",
            crate::images::go_duration(at.elapsed())
        )),
        Some(_) => Ok(()),
    }
}

/// A strategic merge joins conditions by type; everything else of the kubelet's is replaced. Addresses too are joined by
/// type, which mixes up two of one: they are replaced as a whole, or left out.
fn status_patch(before: Option<&NodeStatus>, status: &NodeStatus) -> Value {
    let mut patch = serde_json::to_value(status).unwrap_or(Value::Null);
    let replaced = before.and_then(|before| before.addresses.as_ref()) != status.addresses.as_ref();
    match patch.get_mut("addresses").and_then(Value::as_array_mut) {
        Some(list) if replaced => list.insert(0, json!({ "$patch": "replace" })),
        _ => drop(patch.as_object_mut().and_then(|fields| fields.remove("addresses"))),
    }
    json!({ "status": patch })
}

pub(crate) async fn in_time<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(result) => result,
        Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed))),
    }
}

/// The condition of a type.
pub(crate) fn find<'a>(conditions: &'a [NodeCondition], type_: &str) -> Option<&'a NodeCondition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}
