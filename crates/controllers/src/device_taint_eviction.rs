//! Device taint eviction: deletes pods whose devices have a NoExecute taint that their claims do not tolerate, at once or
//! when the toleration ends.
//!
//! Taints come from ResourceSlices; DeviceTaintRules are off by default upstream and have no effect here. Invariant: only
//! pods for which a claim is reserved go.

mod plan;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use kedge_client::{Change, Informer, Queue, object_key};
use kedge_meta::ObjectKey;

use crate::eviction::{Fate, Waiting, Words, is_there};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use plan::{eviction_time, is_of_pool, results};

const WORDS: Words = Words {
    event_reason: "DeviceTaintManagerEviction",
    reason: "DeletionByDeviceTaintManager",
    message: "Device Taint manager: deleting due to NoExecute taint",
    goes: |_| "Marking for deletion".to_owned(),
    stays: |_| "Cancelling deletion".to_owned(),
};

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let pods = starter.informer::<Pod>();
    let claims = starter.informer::<ResourceClaim>();
    let slices = starter.informer::<ResourceSlice>();
    let queue = Queue::new();
    starter.enqueue(&pods, &queue, |change| {
        let uses_claims = change.object().spec.as_ref().is_some_and(|spec| spec.resource_claims.is_some());
        if uses_claims { vec![object_key(&**change.object())] } else { Vec::new() }
    });
    starter.enqueue(&claims, &queue, |change| users(change.object()));
    let known = claims.clone();
    starter.enqueue(&slices, &queue, move |change| pods_to_look_at(change, &known));
    let workers = starter.context.config.concurrency;
    let controller = Evictions { context: starter.context.clone(), pods, claims, slices, waiting: Waiting::default() };
    starter.work(Arc::new(controller), queue, workers);
}

/// The pods for which a claim is reserved.
fn users(claim: &ResourceClaim) -> Vec<ObjectKey> {
    let namespace = claim.metadata.namespace.clone().unwrap_or_default();
    let consumers = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
    let pods = consumers.filter(|consumer| consumer.resource == "pods" && consumer.api_group.is_none());
    pods.map(|consumer| ObjectKey::new(namespace.clone(), consumer.name.clone())).collect()
}

/// The pods that have devices of a pool of which a slice changed.
fn pods_to_look_at(change: &Change<ResourceSlice>, claims: &Informer<ResourceClaim>) -> Vec<ObjectKey> {
    let slices = match change {
        Change::Added(slice) | Change::Deleted(slice) => vec![slice],
        Change::Updated { old, new } => vec![old, new],
    };
    let is_touched = |claim: &ResourceClaim| {
        results(claim).iter().any(|result| slices.iter().any(|slice| is_of_pool(slice, result)))
    };
    claims.filter(is_touched).iter().flat_map(|claim| users(claim)).collect()
}

struct Evictions {
    context: Context,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    slices: Informer<ResourceSlice>,
    waiting: Waiting,
}

impl Controller for Evictions {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(pod) = self.pods.get(key).filter(|pod| is_there(pod)) else {
            self.waiting.forget(key);
            return Ok(Next::Done);
        };
        let claims = self.claims.in_namespace(&key.namespace);
        let time = eviction_time(&pod, &claims, &self.slices.list());
        let fate = time.map_or(Fate::Stay, |time| Fate::after(time.duration_since(self.context.now())));
        let count = |late| self.context.metrics.evictions().pod_of_device(late);
        self.waiting.execute(&self.context, (key, &pod), fate, &WORDS, count).await
    }
}
