//! What changes in the cluster is told to the cache and the queue.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodResourceClaimStatus};
use kedge_client::{Change, object_key};
use kedge_meta::ObjectKey;
use tokio::time::Instant;

use super::{Changes, Scheduler};
use crate::event::{Event, Freed, other_cordon, other_features, other_labels, other_taints};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::{Refusers, is_gated};

/// The stand-in among those that refused a pod for extenders: whatever happens may change their minds.
pub(super) const EXTENDER: &str = "Extender";

impl Scheduler {
    /// Takes in everything that has come up.
    pub(super) fn take_in_all(&mut self, changes: &mut Changes) {
        while let Some(change) = changes.nodes.try_next() {
            self.take_in_node(change);
        }
        while let Some(change) = changes.pods.try_next() {
            self.take_in_pod(change);
        }
        while let Some(change) = changes.storage.try_next() {
            self.happened(Event::Object(&change));
        }
        while let Some(change) = changes.devices.try_next() {
            self.happened(Event::Object(&change));
        }
        while let Ok(binding) = changes.bindings.try_recv() {
            self.take_in_binding(binding);
        }
        while let Ok(victim) = changes.spared.try_recv() {
            self.has_left(&victim);
        }
    }

    /// A pod that others may have waited for is gone, or was spared.
    pub(super) fn has_left(&mut self, key: &ObjectKey) {
        let left = self.evictions.left(key);
        for pod in left.free {
            self.queue.wake_one(&pod, Instant::now());
        }
        for pod in left.seen_off {
            self.queue.let_be_helped(&pod);
        }
    }

    /// A pod that others may have waited for is on its way out: that can take its time, in which something else may help
    /// those who wait.
    fn is_leaving(&mut self, key: &ObjectKey) {
        for pod in self.evictions.leaving(key) {
            self.queue.let_be_helped(&pod);
        }
    }

    /// A pod does not count on its node any more.
    fn take_off(&mut self, key: &ObjectKey) {
        let node = self.cache.place_of_pod(key).map(str::to_owned);
        if let Some(pod) = self.cache.remove_pod(key) {
            self.has_room(node, &pod);
        }
    }

    /// A pod is not where the scheduler wanted to have it.
    pub(super) fn forget(&mut self, key: &ObjectKey) {
        let node = self.cache.place_of_pod(key).map(str::to_owned);
        if let Some(pod) = self.cache.forget(key) {
            self.has_room(node, &pod);
        }
    }

    fn has_room(&mut self, node: Option<String>, pod: &PodInfo) {
        let node = node.and_then(|name| self.cache.node(&name)).cloned();
        let nominated = std::mem::take(&mut self.nominated);
        let freed = node.as_deref().map(|node| Freed { node, nominated: &nominated });
        self.happened(Event::AssignedPodDelete(pod, freed));
        self.nominated = nominated;
    }

    /// A pod that waits for a node is no more.
    fn stop_waiting(&mut self, key: &ObjectKey) {
        self.queue.remove(key);
        self.take_back_promise(key);
        self.evictions.forget(key);
    }

    /// Wakes the pods that an event may help.
    pub(super) fn happened(&mut self, event: Event<'_>) {
        let profiles = &self.profiles;
        let asks = |pod: &PodInfo, name: &str| {
            let plugin = profiles.get(pod.scheduler_name()).and_then(|profile| profile.plugin(name));
            name == EXTENDER || plugin.is_some_and(|plugin| plugin.may_help(pod, &event))
        };
        let helps = |pod: &PodInfo, refusers: &Refusers| refusers.iter().any(|name| asks(pod, name));
        let (active, backing_off) = self.queue.wake(Instant::now(), helps);
        if active + backing_off > 0 {
            self.metrics.queued(&event.name(), active, backing_off);
        }
    }

    pub(super) fn take_in_node(&mut self, change: Change<Node>) {
        match change {
            Change::Added(node) => {
                let name = node.metadata.name.clone().unwrap_or_default();
                self.cache.set_node(node);
                if let Some(node) = self.cache.node(&name).cloned() {
                    self.happened(Event::NodeAdd(&node));
                }
            }
            Change::Updated { old, new } => self.update_node(&old, new),
            Change::Deleted(node) => {
                self.cache.remove_node(node.metadata.name.as_deref().unwrap_or_default());
                self.happened(Event::NodeDelete(&node));
            }
        }
    }

    fn update_node(&mut self, old: &Node, new: Arc<Node>) {
        let name = new.metadata.name.clone().unwrap_or_default();
        let helps = is_seen(old, &new);
        if !helps && images(old) == images(&new) {
            // A heartbeat: nothing that anybody looks at.
            return;
        }
        self.cache.set_node(new);
        let seen: Option<Arc<NodeInfo>> = self.cache.node(&name).filter(|_| helps).cloned();
        if let Some(new) = seen {
            self.happened(Event::NodeUpdate { old, new: &new });
        }
    }

    pub(super) fn take_in_pod(&mut self, change: Change<Pod>) {
        let is_gone = matches!(change, Change::Deleted(_));
        let pod = change.object().clone();
        let key = object_key(&*pod);
        if is_gone || is_terminal(&pod) {
            self.stop_waiting(&key);
            self.take_off(&key);
            return self.has_left(&key);
        }
        if self.cache.pod(&key).is_some_and(|placed| Some(&placed.uid) != pod.metadata.uid.as_ref()) {
            // Its namesake went while nobody looked.
            self.take_off(&key);
            self.stop_waiting(&key);
            self.has_left(&key);
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty());
        if let Some(node) = node {
            return self.take_in_placed(pod, &node);
        }
        let info = self.cache.pod_info(pod);
        if !self.profiles.contains_key(info.scheduler_name()) || info.pod().metadata.deletion_timestamp.is_some() {
            return self.stop_waiting(&key);
        }
        if self.cache.is_assumed(&key) {
            return;
        }
        match change {
            Change::Updated { old, new } if is_same_to_us(&old, &new) => self.queue.refresh(info),
            _ => self.enqueue(info),
        }
    }

    fn take_in_placed(&mut self, pod: Arc<Pod>, node: &str) {
        let new = self.cache.pod_info(pod);
        self.stop_waiting(&new.key);
        let old = self.cache.pod(&new.key).cloned();
        let was_assumed = self.cache.is_assumed(&new.key);
        self.cache.set_pod(node, new.clone());
        match old {
            // A new neighbour may be what a pod with affinity waits for.
            None => self.happened(Event::AssignedPodAdd(&new)),
            Some(_) if was_assumed => self.happened(Event::AssignedPodAdd(&new)),
            Some(old) if old.requests != new.requests || old.shape != new.shape => {
                self.happened(Event::AssignedPodUpdate { old: &old, new: &new });
            }
            Some(_) => {}
        }
        if new.shape.is_terminating {
            self.is_leaving(&new.key);
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
        let promised = pod.pod().status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
        if let Some(node) = promised.filter(|node| !node.is_empty() && self.nominated.node_of(&pod.key).is_none()) {
            self.promise(pod.clone(), node);
        }
        self.metrics.queued("PodAdd", 1, 0);
        self.queue.add(pod);
    }
}

/// The names of the claims that were made for a pod: it waits for them.
fn claim_statuses(pod: &Pod) -> Option<&Vec<PodResourceClaimStatus>> {
    pod.status.as_ref()?.resource_claim_statuses.as_ref()
}

/// Whether a change of a waiting pod can't matter for where it may run: only its status says something else.
fn is_same_to_us(old: &Pod, new: &Pod) -> bool {
    old.spec == new.spec
        && old.metadata.labels == new.metadata.labels
        && claim_statuses(old) == claim_statuses(new)
        && old.metadata.uid == new.metadata.uid
}

fn is_terminal(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Whether a node changed in what filters look at.
fn is_seen(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    other_labels(old, new)
        || other_taints(old, new)
        || other_cordon(old, new)
        || other_features(old, new)
        || allocatable(old) != allocatable(new)
}

fn images(node: &Node) -> Option<&Vec<k8s_openapi::api::core::v1::ContainerImage>> {
    node.status.as_ref()?.images.as_ref()
}
