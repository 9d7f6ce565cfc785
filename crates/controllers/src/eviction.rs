//! How pods are driven out by a taint: said, marked as disrupted, deleted.
//!
//! Invariant: a pod that has taken the name of the one that was meant stays.

use k8s_openapi::api::core::v1::Pod;
use kedge_client::{object_key, object_reference};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use crate::error::{ReconcileError, unless_gone};
use crate::pods::condition;
use crate::runtime::Context;

/// Why a pod is evicted, in upstream's words.
pub(crate) struct Words {
    /// Reason of the events.
    pub(crate) event_reason: &'static str,
    /// Reason of the condition `DisruptionTarget`.
    pub(crate) reason: &'static str,
    /// Its message.
    pub(crate) message: &'static str,
}

/// Says `text` about a pod, marks it, and deletes it.
pub(crate) async fn evict(context: &Context, pod: &Pod, words: &Words, text: String) -> Result<(), ReconcileError> {
    let key = object_key(pod);
    context.normal(&object_reference(pod), words.event_reason, text);
    let pods = Api::<Pod>::namespaced(context.client.clone(), &key.namespace);
    if condition(pod, "DisruptionTarget").is_none_or(|condition| condition.status != "True") {
        let patch = json!({
            "metadata": { "uid": pod.metadata.uid },
            "status": { "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": words.reason, "message": words.message,
                "lastTransitionTime": kedge_meta::format_time(context.now()),
            }] },
        });
        unless_gone(pods.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
    }
    let parameters = DeleteParams {
        preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    unless_gone(pods.delete(&key.name, &parameters).await)?;
    Ok(())
}
