//! The loop that looks at the node every ten seconds and evicts.
//!
//! Invariant: resources of the node itself (dead containers, unused images) are reclaimed before a pod goes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kedge_client::EventType;
use tokio::time::Instant;

use super::limits::{has_limits, violation};
use super::measure::{Layers, Meter};
use super::message::{REASON, low_on};
use super::rank::{is_critical, rank};
use super::state::{Observations, State, met, with_allocatable};
use super::threshold::{Resource, Signal, Threshold};
use super::usage::Candidate;
use crate::agent::Agent;
use crate::container_gc;
use crate::image_gc;
use crate::manager::PodTable;
use crate::spec;
use crate::status::Stop;
use crate::termination::Termination;

const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long the next look waits for evicted pods to be gone.
const CLEANUP_PATIENCE: Duration = Duration::from_secs(30);
const CLEANUP_POLL: Duration = Duration::from_secs(1);
/// The grace period of a pod that goes at once.
const IMMEDIATE: Duration = Duration::from_secs(1);

/// Evicts until the task is dropped.
pub(crate) async fn run(agent: Arc<Agent>, table: PodTable) {
    let settings = &agent.config.eviction;
    let thresholds = with_allocatable(&settings.thresholds, agent.config.enforce_node_allocatable);
    if thresholds.is_empty() && !settings.local_storage_capacity_isolation {
        return;
    }
    let meter = Meter::new(agent.clone());
    let state = State::default();
    let mut evictor = Evictor { agent, table, meter, thresholds, state, told: None, began: Instant::now() };
    loop {
        let evicted = evictor.synchronize().await;
        if evicted.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        } else {
            evictor.wait_for_cleanup(&evicted).await;
        }
    }
}

struct Evictor {
    agent: Arc<Agent>,
    table: PodTable,
    meter: Meter,
    thresholds: Vec<Threshold>,
    state: State,
    /// What the log was last told of.
    told: Option<Signal>,
    began: Instant,
}

impl Evictor {
    /// One look; the pods that were evicted.
    async fn synchronize(&mut self) -> Vec<Arc<Pod>> {
        let seen = self.meter.observe().await;
        let transition = self.agent.config.eviction.pressure_transition_period;
        let verdict = self.state.look(&self.thresholds, &seen, transition, self.began.elapsed());
        self.agent.pressures.set(verdict.pressures);
        let pods = self.active_pods();
        if self.agent.config.eviction.local_storage_capacity_isolation {
            let evicted = self.enforce_limits(&pods).await;
            if !evicted.is_empty() {
                return evicted;
            }
        }
        match verdict.due.first() {
            Some(first) => self.reclaim(*first, &verdict.due, &seen, pods).await.into_iter().collect(),
            None => {
                self.told = None;
                Vec::new()
            }
        }
    }

    /// The pods that use anything of the node, or soon will.
    fn active_pods(&self) -> Vec<Arc<Pod>> {
        let is_active = |pod: &&Arc<Pod>| {
            let status = self.agent.statuses.get(spec::uid(pod));
            let phase = status.as_ref().unwrap_or(spec::pod_status(pod)).phase.as_deref();
            !spec::is_terminal_phase(phase)
        };
        self.table.read().values().filter(is_active).cloned().collect()
    }

    async fn enforce_limits(&self, pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let mut evicted = Vec::new();
        // DIVERGES: upstream measures all pods, once a minute.
        for pod in pods.iter().filter(|pod| has_limits(pod)) {
            let layers = self.meter.layers(Some(spec::uid(pod))).await;
            let usage = self.meter.pod(pod, &layers).await;
            let Some(violation) = violation(pod, &usage, self.meter.dedicated_image_fs()) else { continue };
            if self.evict(pod, violation.message, IMMEDIATE, false).await {
                self.agent.metrics.evictions.count(&[violation.signal]);
                evicted.push(pod.clone());
            }
        }
        evicted
    }

    /// Reclaims what the node can do without, else evicts one pod.
    async fn reclaim(
        &mut self,
        first: Threshold,
        due: &[Threshold],
        seen: &Observations,
        pods: Vec<Arc<Pod>>,
    ) -> Option<Arc<Pod>> {
        let resource = first.signal.resource();
        let message = format!("Attempting to reclaim {}", resource.name());
        if self.told.replace(first.signal) != Some(first.signal) {
            tracing::warn!(signal = first.signal.name(), resource = resource.name(), "an eviction threshold is met");
        }
        self.agent.events.node(EventType::Warning, "EvictionThresholdMet", message);
        if self.reclaim_from_node(first.signal).await {
            return None;
        }
        let layers = match resource {
            Resource::EphemeralStorage | Resource::Inodes => self.meter.layers(None).await,
            Resource::Memory | Resource::Pids => Layers::default(),
        };
        let mut candidates = Vec::new();
        for pod in pods {
            let usage = Some(self.meter.pod(&pod, &layers).await);
            candidates.push(Candidate { pod, usage });
        }
        rank(&mut candidates, first.signal, self.meter.dedicated_image_fs());
        let longest = Duration::from_secs(self.agent.config.eviction.max_pod_grace_period_seconds);
        let grace = if first.is_hard() { IMMEDIATE } else { longest };
        for candidate in candidates {
            let message = low_on(resource, &candidate.pod, candidate.usage.as_ref(), due, seen);
            if self.evict(&candidate.pod, message, grace, true).await {
                self.agent.metrics.evictions.count(&[first.signal.name()]);
                return Some(candidate.pod);
            }
        }
        None
    }

    /// Whether removing dead containers and unused images was enough.
    async fn reclaim_from_node(&mut self, signal: Signal) -> bool {
        let is_image = matches!(signal, Signal::ImagefsAvailable | Signal::ImagefsInodesFree);
        let is_disk = matches!(signal.resource(), Resource::EphemeralStorage | Resource::Inodes);
        if !is_disk || self.meter.dedicated_image_fs() && !is_image {
            return false;
        }
        container_gc::remove_all_unused(&self.agent).await;
        if let Err(error) = image_gc::remove_all_unused(&self.agent).await {
            tracing::warn!(%error, "failed to remove unused images");
        }
        let seen = self.meter.observe().await;
        met(&self.thresholds, &seen, true).is_empty()
    }

    async fn evict(&self, pod: &Arc<Pod>, message: String, grace: Duration, disruption: bool) -> bool {
        if is_critical(pod) {
            tracing::debug!(pod = spec::format_pod(pod), "a critical pod is not evicted");
            return false;
        }
        tracing::info!(pod = spec::format_pod(pod), message, "evicting a pod");
        self.agent.events.pod(pod, EventType::Warning, REASON, message.clone());
        let termination = Termination {
            uid: spec::uid(pod).to_owned(),
            disruption: disruption.then(|| message.clone()),
            stop: Stop { reason: REASON.to_owned(), message, rejected: false },
            grace,
            decided_at: self.agent.now(),
        };
        self.agent.terminations.send(termination).await.is_ok()
    }

    /// Waits until nothing runs in the evicted pods any more and their volumes are gone.
    async fn wait_for_cleanup(&self, evicted: &[Arc<Pod>]) {
        let is_gone = |pod: &Arc<Pod>| {
            let uid = spec::uid(pod);
            let phase = self.agent.statuses.get(uid).and_then(|status| status.phase);
            spec::is_terminal_phase(phase.as_deref())
                && !self.agent.states.get(uid).any_running()
                && !self.agent.config.pod_dir(uid).join("volumes").exists()
        };
        let deadline = Instant::now() + CLEANUP_PATIENCE;
        while !evicted.iter().all(is_gone) {
            if Instant::now() > deadline {
                tracing::warn!("evicted pods are not gone yet");
                return;
            }
            tokio::time::sleep(CLEANUP_POLL).await;
        }
    }
}
