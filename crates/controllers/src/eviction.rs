//! How pods are driven out by a taint: said, marked as disrupted, deleted; at once, or when what they tolerate ends.
//!
//! Invariant: a pod that has taken the name of the one that was meant stays, and its time begins anew.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kedge_client::object_reference;
use kedge_meta::ObjectKey;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::json;

use crate::error::{ReconcileError, unless_gone};
use crate::pods::{condition, is_terminal};
use crate::runtime::{Context, Next, Outcome};

/// Why a pod is evicted, in upstream's words.
pub(crate) struct Words {
    /// Reason of the events.
    pub(crate) event_reason: &'static str,
    /// Reason of the condition `DisruptionTarget`.
    pub(crate) reason: &'static str,
    /// Its message.
    pub(crate) message: &'static str,
    /// That a pod goes.
    pub(crate) goes: fn(&ObjectKey) -> String,
    /// That one stays which was to go later.
    pub(crate) stays: fn(&ObjectKey) -> String,
}

/// What becomes of a pod.
#[derive(Debug, PartialEq)]
pub(crate) enum Fate {
    Stay,
    Wait(Duration),
    /// It is to go since so long.
    Evict(SignedDuration),
}

impl Fate {
    /// Of a pod that may stay for so long yet.
    pub(crate) fn after(left: SignedDuration) -> Self {
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => Self::Wait(left),
            _ => Self::Evict(-left),
        }
    }
}

/// Whether a pod is one that can be driven out.
pub(crate) fn is_there(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !is_terminal(pod)
}

/// Pods that wait for the end of what they tolerate: uid, and since when.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<HashMap<ObjectKey, (Option<String>, Timestamp)>>);

impl Waiting {
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }

    /// Since when a pod waits, where it does.
    pub(crate) fn since(&self, key: &ObjectKey, pod: &Pod) -> Option<Timestamp> {
        let mut waiting = self.0.lock();
        waiting.retain(|other, (uid, _)| other != key || *uid == pod.metadata.uid);
        waiting.get(key).map(|(_, since)| *since)
    }

    /// Does what was decided about a pod; one that went is counted with how late it was.
    pub(crate) async fn execute(
        &self,
        context: &Context,
        (key, pod): (&ObjectKey, &Pod),
        fate: Fate,
        words: &Words,
        count: impl FnOnce(SignedDuration) + Send,
    ) -> Outcome {
        match fate {
            Fate::Stay => {
                if self.0.lock().remove(key).is_some() {
                    context.normal(&object_reference(pod), words.event_reason, (words.stays)(key));
                }
                Ok(Next::Done)
            }
            Fate::Wait(left) => {
                self.0.lock().entry(key.clone()).or_insert((pod.metadata.uid.clone(), context.now()));
                Ok(Next::After(left))
            }
            Fate::Evict(late) => {
                evict(context, key, pod, words).await?;
                count(late);
                self.forget(key);
                Ok(Next::Done)
            }
        }
    }
}

/// Says that a pod goes, marks it, and deletes it.
async fn evict(context: &Context, key: &ObjectKey, pod: &Pod, words: &Words) -> Result<(), ReconcileError> {
    context.normal(&object_reference(pod), words.event_reason, (words.goes)(key));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::pod;

    #[test]
    fn another_pod_of_the_name_waits_from_anew() {
        let (waiting, key) = (Waiting::default(), ObjectKey::new("default", "a"));
        let named = |uid: &str| {
            let mut pod = pod("a");
            pod.metadata.uid = Some(uid.to_owned());
            pod
        };
        waiting.0.lock().insert(key.clone(), (Some("1".to_owned()), Timestamp::UNIX_EPOCH));
        assert_eq!(waiting.since(&key, &named("1")), Some(Timestamp::UNIX_EPOCH));
        assert_eq!(waiting.since(&key, &named("2")), None);
        assert_eq!(waiting.since(&key, &named("1")), None);
    }
}
