//! The persistent volume binder: brings claims and volumes together, and says what state they are in.
//!
//! Makes and deletes no storage: a claim whose class has a provisioner waits for that one, and a released volume with the
//! policy Delete is left to the one that made it. Invariant: a volume is reserved for a claim (by uid) before the claim
//! names the volume.

mod plan;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::ObjectKey;
use kube::api::{Api, PostParams};

use crate::error::ReconcileError;
use crate::expectations::Expectations;
use crate::pods::name_of;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use plan::{
    BOUND_BY_CONTROLLER, SELECTED_NODE, VolumeState, class_of_claim, find_volume, is_reserved_for, volume_state,
};

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let volumes = starter.informer::<PersistentVolume>();
    let claims = starter.informer::<PersistentVolumeClaim>();
    let classes = starter.informer::<StorageClass>();
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
    let expectations = Expectations::default();
    let controller = Binder { context: starter.context.clone(), volumes, claims, classes, expectations };
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

impl Binder {
    async fn reconcile_volume(&self, key: &ObjectKey) -> Outcome {
        let Some(volume) = self.volumes.get(key) else { return Ok(Next::Done) };
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let claim = reference.and_then(|reference| {
            let namespace = reference.namespace.clone().unwrap_or_default();
            self.claims.get(&ObjectKey::new(namespace, reference.name.clone().unwrap_or_default()))
        });
        let phase = match volume_state(&volume, claim.as_deref()) {
            VolumeState::Available => "Available",
            VolumeState::Bound => "Bound",
            VolumeState::Released => "Released",
            VolumeState::Surplus => return self.unreserve(&volume).await,
        };
        self.write_volume_phase(&volume, phase).await?;
        Ok(Next::Done)
    }

    async fn unreserve(&self, volume: &PersistentVolume) -> Outcome {
        let mut changed = volume.clone();
        changed.metadata.annotations.get_or_insert_default().remove(BOUND_BY_CONTROLLER);
        changed.spec.get_or_insert_default().claim_ref = None;
        let volumes = Api::<PersistentVolume>::all(self.context.client.clone());
        volumes.replace(name_of(&volume.metadata), &PostParams::default(), &changed).await?;
        Ok(Next::Done)
    }

    async fn write_volume_phase(&self, volume: &PersistentVolume, phase: &str) -> Result<(), ReconcileError> {
        if volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase) {
            return Ok(());
        }
        let mut changed = volume.clone();
        let status = changed.status.get_or_insert_default();
        status.phase = Some(phase.to_owned());
        status.last_phase_transition_time = Some(Time(self.context.now()));
        let volumes = Api::<PersistentVolume>::all(self.context.client.clone());
        volumes.replace_status(name_of(&volume.metadata), &PostParams::default(), &changed).await?;
        Ok(())
    }

    async fn reconcile_claim(&self, key: &ObjectKey) -> Outcome {
        let Some(claim) = self.claims.get(key) else {
            self.expectations.forget(key);
            return Ok(Next::Done);
        };
        if let Some(lag) = self.expectations.lag(key, &self.claims, self.context.now()) {
            return Ok(Next::After(lag));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|name| !name.is_empty());
        let volume = match &named {
            Some(name) => self.volumes.get(&ObjectKey::cluster(name)),
            None if !self.may_bind(&claim) => {
                let text = "waiting for first consumer to be created before binding";
                self.context.normal(&object_reference(&*claim), "WaitForFirstConsumer", text);
                return self.write_claim_phase(key, &claim, "Pending").await;
            }
            None => find_volume(&claim, &self.volumes.list()),
        };
        match volume {
            Some(volume)
                if volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none())
                    || is_reserved_for(&volume, &claim) =>
            {
                self.bind(key, &claim, &volume).await
            }
            // The volume that the claim names belongs to another one.
            Some(_) => self.write_claim_phase(key, &claim, "Pending").await,
            None if named.is_some() && is_bound(&claim) => {
                let text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
                self.context.warning(&object_reference(&*claim), "ClaimLost", text);
                self.write_claim_phase(key, &claim, "Lost").await
            }
            None => self.wait_for_volume(key, &claim).await,
        }
    }

    /// A claim of a class that binds late waits until the scheduler has chosen a node.
    fn may_bind(&self, claim: &PersistentVolumeClaim) -> bool {
        let class = self.classes.get(&ObjectKey::cluster(class_of_claim(claim)));
        let binds_late =
            class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
        let annotations = claim.metadata.annotations.as_ref();
        !binds_late || annotations.is_some_and(|annotations| annotations.contains_key(SELECTED_NODE))
    }

    async fn wait_for_volume(&self, key: &ObjectKey, claim: &PersistentVolumeClaim) -> Outcome {
        let about = object_reference(claim);
        let class = class_of_claim(claim);
        let provisioner = self.classes.get(&ObjectKey::cluster(&class)).map(|class| class.provisioner.clone());
        match provisioner.filter(|provisioner| provisioner != NO_PROVISIONER) {
            Some(provisioner) => {
                let text = format!(
                    "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by \
                     the system administrator. If volume creation is delayed, please verify that the provisioner is \
                     running and correctly registered."
                );
                self.context.normal(&about, "ExternalProvisioning", text);
                let annotations = claim.metadata.annotations.as_ref();
                let is_noted = annotations.and_then(|annotations| annotations.get(PROVISIONER)) == Some(&provisioner);
                if !is_noted {
                    let mut changed = claim.clone();
                    changed.metadata.annotations.get_or_insert_default().insert(PROVISIONER.to_owned(), provisioner);
                    let claims = Api::<PersistentVolumeClaim>::namespaced(self.context.client.clone(), &key.namespace);
                    claims.replace(&key.name, &PostParams::default(), &changed).await?;
                    return Ok(Next::Done);
                }
            }
            None if class.is_empty() => {
                let text = "no persistent volumes available for this claim and no storage class is set";
                self.context.normal(&about, "FailedBinding", text);
            }
            None if self.classes.get(&ObjectKey::cluster(&class)).is_none() => {
                let text = format!("storageclass.storage.k8s.io \"{class}\" not found");
                self.context.warning(&about, "ProvisioningFailed", text);
            }
            None => {
                let text = "no persistent volumes available for this claim and no storage class is set";
                self.context.normal(&about, "FailedBinding", text);
            }
        }
        self.write_claim_phase(key, claim, "Pending").await
    }

    async fn write_claim_phase(&self, key: &ObjectKey, claim: &PersistentVolumeClaim, phase: &str) -> Outcome {
        if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase) {
            return Ok(Next::Done);
        }
        let mut changed = claim.clone();
        changed.status.get_or_insert_default().phase = Some(phase.to_owned());
        let claims = Api::<PersistentVolumeClaim>::namespaced(self.context.client.clone(), &key.namespace);
        claims.replace_status(&key.name, &PostParams::default(), &changed).await?;
        Ok(Next::Done)
    }

    /// Reserves the volume, says so, then names it in the claim and says so there.
    async fn bind(&self, key: &ObjectKey, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Outcome {
        let volumes = Api::<PersistentVolume>::all(self.context.client.clone());
        let volume_name = name_of(&volume.metadata);
        let mut volume = volume.clone();
        let spec = volume.spec.get_or_insert_default();
        let uid = spec.claim_ref.as_ref().and_then(|reference| reference.uid.as_ref());
        if uid != claim.metadata.uid.as_ref() {
            if spec.claim_ref.is_none() {
                let annotations = volume.metadata.annotations.get_or_insert_default();
                annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
            }
            let spec = volume.spec.get_or_insert_default();
            spec.claim_ref = Some(object_reference(claim));
            volume = volumes.replace(volume_name, &PostParams::default(), &volume).await?;
        }
        self.write_volume_phase(&volume, "Bound").await?;
        let claims = Api::<PersistentVolumeClaim>::namespaced(self.context.client.clone(), &key.namespace);
        let mut claim = claim.clone();
        if !is_bound(&claim) {
            let annotations = claim.metadata.annotations.get_or_insert_default();
            annotations.insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
            let spec = claim.spec.get_or_insert_default();
            if spec.volume_name.as_deref() != Some(volume_name) {
                let annotations = claim.metadata.annotations.get_or_insert_default();
                annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
                let spec = claim.spec.get_or_insert_default();
                spec.volume_name = Some(volume_name.to_owned());
            }
            claim = claims.replace(&key.name, &PostParams::default(), &claim).await?;
            self.expectations.updated(key, &claim.metadata, self.context.now());
        }
        let spec = volume.spec.clone().unwrap_or_default();
        let before = claim.status.clone();
        let status = claim.status.get_or_insert_default();
        status.phase = Some("Bound".to_owned());
        status.access_modes = spec.access_modes;
        // A volume that grew is reported by whoever grew it.
        if before.as_ref().and_then(|status| status.capacity.as_ref()).is_none() {
            status.capacity = spec.capacity;
        }
        if claim.status != before {
            claims.replace_status(&key.name, &PostParams::default(), &claim).await?;
        }
        Ok(Next::Done)
    }
}
