//! The persistent volume binder: brings claims and volumes together, and says what state they are in.
//!
//! Makes and deletes no storage: a claim whose class has a provisioner waits for that one, and a released volume with the
//! policy Delete is left to the one that made it. Invariant: a volume is reserved for a claim (by uid) before the claim
//! names the volume.

mod claim;
mod figures;
mod match_volume;
mod plan_claim;
mod plan_volume;
mod volume;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kedge_client::{Change, Informer, Queue, object_key};
use kedge_meta::ObjectKey;

use crate::expectations::Expectations;
use crate::runtime::{Context, Controller, Outcome, Starter};

pub(crate) use match_volume::storage;

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let volumes = starter.informer::<PersistentVolume>();
    let claims = starter.informer::<PersistentVolumeClaim>();
    let classes = starter.informer::<StorageClass>();
    let pods = starter.informer::<Pod>();
    let known = (volumes.clone(), claims.clone());
    starter.context.metrics.show("persistentvolume-binder-controller", move |text| {
        figures::write(text, &known.0.list(), &known.1.list());
    });
    let queue = Queue::new();
    let of_claims = volumes.clone();
    starter.enqueue(&claims, &queue, move |change| {
        let claim = change.object();
        let mut keys = vec![object_key(&**claim)];
        keys.extend(of_claims.filter(|volume| names(volume, claim)).iter().map(|volume| object_key(&**volume)));
        keys
    });
    let of_volumes = claims.clone();
    starter.enqueue(&volumes, &queue, move |change| {
        let mut keys = vec![object_key(&**change.object())];
        // A volume that comes or changes may be what a claim waits for.
        let waiting = of_volumes.filter(|claim| !is_bound(claim) || matches!(change, Change::Deleted(_)));
        keys.extend(waiting.iter().map(|claim| object_key(&**claim)));
        keys
    });
    let of_classes = claims.clone();
    starter.enqueue(&classes, &queue, move |change| match change {
        Change::Deleted(_) => Vec::new(),
        _ => of_classes.filter(|claim| !is_bound(claim)).iter().map(|claim| object_key(&**claim)).collect(),
    });
    let expectations = Expectations::default();
    let controller = Binder { context: starter.context.clone(), volumes, claims, classes, pods, expectations };
    // One worker: two claims must not choose one volume.
    starter.work(Arc::new(controller), queue, 1);
}

fn names(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| {
        reference.name == claim.metadata.name && reference.namespace == claim.metadata.namespace
    })
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(BIND_COMPLETED))
}

struct Binder {
    context: Context,
    volumes: Informer<PersistentVolume>,
    claims: Informer<PersistentVolumeClaim>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
    expectations: Expectations,
}

impl Controller for Binder {
    type Key = ObjectKey;

    /// Claims have a namespace and volumes have none, so that one queue serves both.
    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        match key.namespace.is_empty() {
            true => self.reconcile_volume(key).await,
            false => self.reconcile_claim(key).await,
        }
    }
}
