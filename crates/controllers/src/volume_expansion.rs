//! The volume expansion controller: says who is waited for where a claim asks for more than it has.
//!
//! Grows nothing itself: no volume plugin that could is built in, so that every volume is its provisioner's to grow.
//! Invariant: it only tells.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::ObjectKey;

use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use crate::volume_binder::storage;

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let claims = starter.informer::<PersistentVolumeClaim>();
    let volumes = starter.informer::<PersistentVolume>();
    let queue = Queue::new();
    starter.enqueue(&claims, &queue, |change| match change {
        Change::Updated { old, new } if requested(new) > requested(old) => vec![object_key(&**new)],
        Change::Added(claim) if must_grow(claim) => vec![object_key(&**claim)],
        _ => Vec::new(),
    });
    let controller = VolumeExpansion { context: starter.context.clone(), claims, volumes };
    starter.work(Arc::new(controller), queue, 1);
}

fn requested(claim: &PersistentVolumeClaim) -> kedge_meta::Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage(resources.and_then(|resources| resources.requests.as_ref()))
}

/// Whether a bound claim asks for more than it has.
fn must_grow(claim: &PersistentVolumeClaim) -> bool {
    let Some(status) = &claim.status else { return false };
    status.phase.as_deref() == Some("Bound") && requested(claim) > storage(status.capacity.as_ref())
}

struct VolumeExpansion {
    context: Context,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

impl Controller for VolumeExpansion {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(claim) = self.claims.get(key).filter(|claim| must_grow(claim)) else { return Ok(Next::Done) };
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
        let volume = self.volumes.get(&ObjectKey::cluster(name));
        let reference = volume.as_ref().and_then(|volume| volume.spec.as_ref()?.claim_ref.clone());
        if reference.is_some_and(|reference| reference.uid == claim.metadata.uid) {
            let text = "didn't find a plugin capable of expanding the volume; waiting for an external controller to \
                        process this PVC";
            self.context.normal(&object_reference(&*claim), "ExternalExpanding", text);
        }
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_bound_claims_that_ask_for_more_grow() {
        let check = |phase: &str, requested: &str, capacity: &str, expected: bool| {
            let claim: PersistentVolumeClaim = serde_json::from_value(json!({
                "spec": {"resources": {"requests": {"storage": requested}}},
                "status": {"phase": phase, "capacity": {"storage": capacity}},
            }))
            .unwrap();
            assert_eq!(must_grow(&claim), expected);
        };
        check("Bound", "2Gi", "1Gi", true);
        check("Bound", "1024Mi", "1Gi", false);
        check("Pending", "2Gi", "1Gi", false);
    }
}
