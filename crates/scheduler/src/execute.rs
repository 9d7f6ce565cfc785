//! The scheduler's effects: bindings, conditions, deletions and events.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kedge_client::{Client, EventType, Recorder, object_reference};
use kedge_meta::{Clock, ObjectKey, format_time};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::pod_info::PodInfo;

/// So many evictions, and so many reports, are on their way at the same time.
const AT_ONCE: usize = 64;

/// Does what was decided. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) clock: Arc<dyn Clock>,
    /// So many victims are deleted at the same time, and what is said on pods is written so many at a time: more would
    /// overflow the API server's queues, and be refused.
    evictions: Arc<Semaphore>,
    reports: Arc<Semaphore>,
}

impl Executor {
    pub(crate) fn new(client: Client, recorder: Recorder, clock: Arc<dyn Clock>) -> Self {
        let turns = || Arc::new(Semaphore::new(AT_ONCE));
        Self { client, recorder, clock, evictions: turns(), reports: turns() }
    }

    /// Binds a pod to a node.
    pub(crate) async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
        let body = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.pod().metadata.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let pods = self.pods(pod);
        pods.create_subresource::<Value, Value>("binding", &pod.key.name, &PostParams::default(), &body).await?;
        Ok(())
    }

    /// Says that a pod was bound.
    pub(crate) fn report_scheduled(&self, pod: &PodInfo, node: &str) {
        let text = format!("Successfully assigned {}/{} to {node}", pod.key.namespace, pod.key.name);
        self.recorder.event(&object_reference(pod.pod()), EventType::Normal, "Scheduled", text);
    }

    /// Says on the pod why it has no node: the condition, and an event unless it is held back on purpose.
    pub(crate) async fn report_unscheduled(&self, pod: &PodInfo, reason: &str, message: &str) {
        self.report_promised(pod, reason, message, None).await;
    }

    /// The same, with the node that the pod is promised from now on; an empty one takes back what it was promised.
    pub(crate) async fn report_promised(&self, pod: &PodInfo, reason: &str, message: &str, node: Option<&str>) {
        if reason != "SchedulingGated" {
            self.recorder.event(&object_reference(pod.pod()), EventType::Warning, "FailedScheduling", message);
        }
        let unchanged =
            pod.pod().status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| {
                condition.type_ == "PodScheduled"
                    && condition.status == "False"
                    && condition.reason.as_deref() == Some(reason)
                    && condition.message.as_deref() == Some(message)
            });
        let mut status = serde_json::Map::new();
        if !unchanged {
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
                "lastTransitionTime": format_time(self.clock.now()),
            });
            status.insert("conditions".to_owned(), json!([condition]));
        }
        let promised = pod.pod().status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
        if let Some(node) = node.filter(|node| *node != promised.unwrap_or_default()) {
            status.insert("nominatedNodeName".to_owned(), if node.is_empty() { Value::Null } else { json!(node) });
        }
        if !status.is_empty() {
            self.patch_status(pod, json!({"status": status})).await;
        }
    }

    /// Takes back on a pod what it was promised.
    pub(crate) async fn take_back_promise(&self, pod: &PodInfo) {
        self.patch_status(pod, json!({"status": {"nominatedNodeName": null}})).await;
    }

    /// Deletes the victims of a preemption, all at the same time; those that could not be deleted.
    pub(crate) async fn preempt(&self, pod: &Arc<PodInfo>, node: &str, victims: &[Arc<PodInfo>]) -> Vec<ObjectKey> {
        let mut evictions = JoinSet::new();
        for victim in victims {
            let (executor, pod, victim, node) = (self.clone(), pod.clone(), victim.clone(), node.to_owned());
            evictions
                .spawn(async move { executor.evict(&pod, &node, &victim).await.err().map(|_| victim.key.clone()) });
        }
        evictions.join_all().await.into_iter().flatten().collect()
    }

    async fn evict(&self, pod: &PodInfo, node: &str, victim: &PodInfo) -> Result<(), kube::Error> {
        let _turn = self.evictions.acquire().await;
        let text = format!("{}: preempting to accommodate a higher priority pod", pod.scheduler_name());
        let patch = json!({"status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": text,
            "lastTransitionTime": format_time(self.clock.now()),
        }]}});
        self.patch(victim, patch).await;
        let deleted = self.pods(victim).delete(&victim.key.name, &DeleteParams::default()).await;
        deleted.inspect_err(|error| {
            tracing::warn!(pod = %victim.key, %error, "a preempted pod could not be deleted");
        })?;
        let by = pod.pod().metadata.uid.as_deref().unwrap_or_default();
        let text = format!("Preempted by pod {by} on node {node}");
        self.recorder.event(&victim.reference(), EventType::Normal, "Preempted", text);
        Ok(())
    }

    async fn patch_status(&self, pod: &PodInfo, patch: Value) {
        let _turn = self.reports.acquire().await;
        self.patch(pod, patch).await;
    }

    async fn patch(&self, pod: &PodInfo, patch: Value) {
        let result =
            self.pods(pod).patch_status(&pod.key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        if let Err(error) = result {
            tracing::debug!(pod = %pod.key, %error, "a pod's status could not be patched");
        }
    }

    fn pods(&self, pod: &PodInfo) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.key.namespace)
    }
}
