//! The pod garbage collector: pods that ended long ago beyond a number, pods of nodes that are gone, pods that were
//! deleted before they got a node.
//!
//! Looks when something happened that may leave such pods, not by the clock. Invariant: a node counts as gone only after
//! a while, and only if the API says so as well.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use kedge_client::{Change, Informer, Queue, object_key};
use kedge_meta::ObjectKey;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::error::{ReconcileError, unless_gone};
use crate::pods::{condition, is_ready, is_terminal, name_of, node_name};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

/// How long after a reason to look the look is taken, so that many reasons share it.
const DELAY: Duration = Duration::from_secs(20);
const UNSCHEDULED_DELAY: Duration = Duration::from_secs(1);
/// How long a node is missed before its pods are.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let pods = starter.informer::<Pod>();
    let nodes = starter.informer::<Node>();
    let queue = Queue::new();
    let (queue_for_pods, known) = (queue.clone(), nodes.clone());
    starter.feed(&pods, move |change| {
        if let Some(delay) = reason_to_look(change, |node| known.contains(&ObjectKey::cluster(node))) {
            queue_for_pods.add_after(Sweep, delay);
        }
    });
    let queue_for_nodes = queue.clone();
    starter.feed(&nodes, move |change| {
        if matches!(change, Change::Deleted(_)) || is_out_of_service(change.object()) {
            queue_for_nodes.add_after(Sweep, DELAY);
        }
    });
    let controller = PodGc { context: starter.context.clone(), pods, nodes, missing: Mutex::default() };
    starter.work(Arc::new(controller), queue, 1);
}

/// The one key: a look at all pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sweep;

impl std::fmt::Display for Sweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("all pods")
    }
}

fn reason_to_look(change: &Change<Pod>, is_known: impl Fn(&str) -> bool) -> Option<Duration> {
    let pod = change.object();
    if matches!(change, Change::Deleted(_)) {
        return None;
    }
    match node_name(pod) {
        None if pod.metadata.deletion_timestamp.is_some() => Some(UNSCHEDULED_DELAY),
        _ if is_terminal(pod) => Some(DELAY),
        Some(node) if !is_known(node) => Some(DELAY),
        _ => None,
    }
}

/// Why a pod is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reason {
    TooManyTerminated,
    NodeGone,
    NodeOutOfService,
    NeverScheduled,
}

impl Reason {
    /// As upstream counts it.
    fn label(&self) -> &'static str {
        match self {
            Self::TooManyTerminated => "terminated",
            Self::NodeGone => "orphaned",
            Self::NodeOutOfService => "out-of-service",
            Self::NeverScheduled => "unscheduled",
        }
    }
}

struct PodGc {
    context: Context,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    /// Since when nodes that pods name are missing.
    missing: Mutex<HashMap<String, Timestamp>>,
}

impl Controller for PodGc {
    type Key = Sweep;

    async fn reconcile(&self, _: &Sweep) -> Outcome {
        let now = self.context.now();
        let pods = self.pods.list();
        let (gone, look_again) = self.missing_nodes(&pods, now).await?;
        let out_of_service = self.nodes.filter(|node| is_out_of_service(node) && !is_node_ready(node));
        let out_of_service: BTreeSet<String> =
            out_of_service.iter().map(|node| name_of(&node.metadata).to_owned()).collect();
        let threshold = self.context.config.terminated_pod_gc_threshold;
        for (pod, reason) in plan(&pods, &gone, &out_of_service, threshold) {
            let deleted = self.delete(&pod, &reason).await;
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            self.context.metrics.evictions().collected(namespace, reason.label(), deleted.is_ok());
            deleted?;
        }
        Ok(Next::Done.sooner(look_again))
    }
}

impl PodGc {
    /// Nodes that pods are bound to and that have been missing for long enough.
    async fn missing_nodes(
        &self,
        pods: &[Arc<Pod>],
        now: Timestamp,
    ) -> Result<(BTreeSet<String>, Option<Duration>), ReconcileError> {
        let is_missing = |node: &&str| !self.nodes.contains(&ObjectKey::cluster(*node));
        let names: BTreeSet<&str> = pods.iter().filter_map(|pod| node_name(pod)).filter(is_missing).collect();
        let (due, look_again) = {
            let mut missing = self.missing.lock();
            missing.retain(|name, _| names.contains(name.as_str()));
            for name in &names {
                missing.entry((*name).to_owned()).or_insert(now);
            }
            let left = |since: &Timestamp| QUARANTINE - now.duration_since(*since);
            let waiting = missing.values().map(left).filter(|left| !left.is_zero() && !left.is_negative()).min();
            let due = missing.iter().filter(|(_, since)| left(since) <= SignedDuration::ZERO);
            let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
            (due, waiting.and_then(|waiting| Duration::try_from(waiting).ok()))
        };
        let nodes = Api::<Node>::all(self.context.client.clone());
        let mut gone = BTreeSet::new();
        for name in due {
            if nodes.get_metadata_opt(&name).await?.is_none() {
                gone.insert(name);
            }
        }
        Ok((gone, look_again))
    }

    async fn delete(&self, pod: &Pod, reason: &Reason) -> Result<(), ReconcileError> {
        let (namespace, name) = (pod.metadata.namespace.as_deref().unwrap_or_default(), name_of(&pod.metadata));
        tracing::info!(namespace, name, ?reason, "deleting a pod that nobody else will");
        let pods = Api::<Pod>::namespaced(self.context.client.clone(), namespace);
        if let Some(patch) = plan_status(pod, reason, self.context.now()) {
            unless_gone(pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        }
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        unless_gone(pods.delete(name, &now).await)?;
        Ok(())
    }
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

fn is_node_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn plan(
    pods: &[Arc<Pod>],
    gone: &BTreeSet<String>,
    out_of_service: &BTreeSet<String>,
    threshold: usize,
) -> Vec<(Arc<Pod>, Reason)> {
    let is_terminating = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    let mut doomed = Vec::new();
    for pod in pods {
        let reason = match node_name(pod) {
            None if is_terminating(pod) => Reason::NeverScheduled,
            Some(node) if gone.contains(node) => Reason::NodeGone,
            Some(node) if is_terminating(pod) && !is_ready(pod) && out_of_service.contains(node) => {
                Reason::NodeOutOfService
            }
            _ => continue,
        };
        doomed.push((pod.clone(), reason));
    }
    let mut ended: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_terminal(pod)).collect();
    if threshold > 0 && ended.len() > threshold {
        ended.sort_by_key(|pod| (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), object_key(&***pod)));
        for pod in ended.iter().take(ended.len() - threshold) {
            doomed.push(((*pod).clone(), Reason::TooManyTerminated));
        }
    }
    doomed
}

/// What the pod says before it goes: that it failed, and that nobody's fault did it.
fn plan_status(pod: &Pod, reason: &Reason, now: Timestamp) -> Option<serde_json::Value> {
    let message = match reason {
        Reason::NodeGone => "PodGC: node no longer exists",
        Reason::NodeOutOfService => "PodGC: node is out of service",
        Reason::NeverScheduled | Reason::TooManyTerminated => return None,
    };
    if is_terminal(pod) {
        return None;
    }
    let time = kedge_meta::format_time(now);
    let disrupted = condition(pod, "DisruptionTarget").is_some_and(|condition| condition.status == "True");
    let mut status = json!({ "phase": "Failed" });
    if !disrupted {
        status["conditions"] = json!([{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": message, "lastTransitionTime": time,
        }]);
    }
    Some(json!({ "metadata": { "uid": pod.metadata.uid }, "status": status }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::{created, on_node, pod, terminating, with_phase};

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn only_pods_that_nobody_else_deletes_go() {
        let pods: Vec<Arc<Pod>> = [
            pod("fine"),
            on_node(pod("lost"), Some("gone")),
            terminating(on_node(pod("unscheduled"), None)),
            on_node(pod("pending"), None),
            terminating(on_node(pod("dead"), Some("broken"))),
            on_node(pod("alive"), Some("broken")),
            created(with_phase(pod("old"), "Succeeded"), 1),
            created(with_phase(pod("older"), "Failed"), 0),
        ]
        .into_iter()
        .map(Arc::new)
        .collect();
        let check = |threshold: usize, expected: &[&str]| {
            let doomed = plan(&pods, &set(&["gone"]), &set(&["broken"]), threshold);
            let names: Vec<&str> = doomed.iter().map(|(pod, _)| name_of(&pod.metadata)).collect();
            assert_eq!(names, expected);
        };
        check(0, &["lost", "unscheduled", "dead"]);
        check(2, &["lost", "unscheduled", "dead"]);
        check(1, &["lost", "unscheduled", "dead", "older"]);
    }

    #[test]
    fn a_pod_of_a_lost_node_says_that_it_was_disrupted() {
        let patch = plan_status(&pod("a"), &Reason::NodeGone, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(patch["status"]["phase"], "Failed");
        assert_eq!(patch["status"]["conditions"][0]["reason"], "DeletionByPodGC");
        assert_eq!(plan_status(&with_phase(pod("a"), "Failed"), &Reason::NodeGone, Timestamp::UNIX_EPOCH), None);
        assert_eq!(plan_status(&pod("a"), &Reason::NeverScheduled, Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn ordinary_changes_are_no_reason_to_look() {
        let check = |pod: Pod, expected: Option<Duration>| {
            let known = |node: &str| node == "node-1";
            assert_eq!(reason_to_look(&Change::Added(Arc::new(pod)), known), expected);
        };
        check(pod("a"), None);
        check(on_node(pod("a"), None), None);
        check(terminating(on_node(pod("a"), None)), Some(UNSCHEDULED_DELAY));
        check(on_node(pod("a"), Some("other")), Some(DELAY));
        check(with_phase(pod("a"), "Failed"), Some(DELAY));
    }
}
