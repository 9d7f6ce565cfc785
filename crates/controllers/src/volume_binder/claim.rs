//! Doing what was planned for a claim.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kedge_client::{EventType, object_reference};
use kedge_meta::ObjectKey;
use kube::api::{Api, PostParams};

use super::plan_claim::{ClaimPlan, Known, Notice, plan_claim};
use super::{BIND_COMPLETED, BOUND_BY_CONTROLLER, Binder, in_question, is_bound};
use crate::error::ReconcileError;
use crate::pods::name_of;
use crate::runtime::{Next, Outcome};

/// By which a provisioner knows its claims, and the name that this annotation had before.
const PROVISIONERS: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];

impl Binder {
    pub(super) async fn reconcile_claim(&self, key: &ObjectKey) -> Outcome {
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
        let (volumes, classes, pods) =
            (in_question(&claim, &self.volumes), self.classes.list(), self.pods.in_namespace(&key.namespace));
        match plan_claim(&claim, &Known { volumes: &volumes, classes: &classes, pods: &pods }) {
            ClaimPlan::Bind(volume) => self.bind(key, &claim, &volume).await,
            ClaimPlan::Assign(class) => self.assign(key, &claim, class).await,
            ClaimPlan::Provision(provisioner) => self.ask(key, &claim, &provisioner).await,
            ClaimPlan::Wait(notice) => {
                notice.iter().for_each(|notice| self.tell(&claim, notice));
                self.write_claim_phase(key, &claim, "Pending").await
            }
            ClaimPlan::Lose(notice) => {
                if claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Lost") {
                    self.tell(&claim, &notice);
                }
                self.write_claim_phase(key, &claim, "Lost").await
            }
        }
    }

    fn tell(&self, claim: &PersistentVolumeClaim, notice: &Notice) {
        let about = object_reference(claim);
        match notice.event_type {
            EventType::Normal => self.context.normal(&about, notice.reason, &notice.text),
            EventType::Warning => self.context.warning(&about, notice.reason, &notice.text),
        }
    }

    async fn assign(&self, key: &ObjectKey, claim: &PersistentVolumeClaim, class: String) -> Outcome {
        let mut changed = claim.clone();
        changed.spec.get_or_insert_default().storage_class_name = Some(class);
        let written = self.claims_in(key).replace(&key.name, &PostParams::default(), &changed).await;
        self.context.metrics.resources().class_assigned(written.is_ok());
        written?;
        Ok(Next::Done)
    }

    /// Asks an external provisioner for a volume.
    async fn ask(&self, key: &ObjectKey, claim: &PersistentVolumeClaim, provisioner: &str) -> Outcome {
        let text = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        let annotations = claim.metadata.annotations.as_ref();
        let is_noted = |name: &str| annotations.and_then(|all| all.get(name)).is_some_and(|value| value == provisioner);
        if !PROVISIONERS.into_iter().all(is_noted) {
            let mut changed = claim.clone();
            for name in PROVISIONERS {
                let annotations = changed.metadata.annotations.get_or_insert_default();
                annotations.insert(name.to_owned(), provisioner.to_owned());
            }
            let written = self.claims_in(key).replace(&key.name, &PostParams::default(), &changed).await?;
            self.expectations.updated(key, &written.metadata, self.context.now());
            self.tell(claim, &Notice::normal("ExternalProvisioning", text));
            return self.write_claim_phase(key, &written, "Pending").await;
        }
        self.tell(claim, &Notice::normal("ExternalProvisioning", text));
        self.write_claim_phase(key, claim, "Pending").await
    }

    async fn write_claim_phase(&self, key: &ObjectKey, claim: &PersistentVolumeClaim, phase: &str) -> Outcome {
        if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase) {
            return Ok(Next::Done);
        }
        let mut changed = claim.clone();
        changed.status.get_or_insert_default().phase = Some(phase.to_owned());
        self.claims_in(key).replace_status(&key.name, &PostParams::default(), &changed).await?;
        Ok(Next::Done)
    }

    fn claims_in(&self, key: &ObjectKey) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.context.client.clone(), &key.namespace)
    }

    /// Reserves the volume, says so, then names it in the claim and says so there.
    async fn bind(&self, key: &ObjectKey, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Outcome {
        let volume = self.reserve(claim, volume).await?;
        self.write_volume_phase(&volume, "Bound", None).await?;
        let claim = self.name_volume(key, claim, name_of(&volume.metadata)).await?;
        self.write_bound(key, claim, volume).await
    }

    async fn reserve(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<PersistentVolume, ReconcileError> {
        let mut changed = volume.clone();
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        if reference.is_some_and(|reference| reference.uid == claim.metadata.uid) {
            return Ok(changed);
        }
        if reference.is_none() {
            let annotations = changed.metadata.annotations.get_or_insert_default();
            annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        }
        changed.spec.get_or_insert_default().claim_ref = Some(object_reference(claim));
        let volumes = Api::<PersistentVolume>::all(self.context.client.clone());
        Ok(volumes.replace(name_of(&volume.metadata), &PostParams::default(), &changed).await?)
    }

    async fn name_volume(
        &self,
        key: &ObjectKey,
        claim: &PersistentVolumeClaim,
        volume: &str,
    ) -> Result<PersistentVolumeClaim, ReconcileError> {
        let mut changed = claim.clone();
        let is_named = claim.spec.as_ref().is_some_and(|spec| spec.volume_name.as_deref() == Some(volume));
        if is_bound(claim) && is_named {
            return Ok(changed);
        }
        let annotations = changed.metadata.annotations.get_or_insert_default();
        annotations.insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
        if !is_named {
            annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
            changed.spec.get_or_insert_default().volume_name = Some(volume.to_owned());
        }
        let written = self.claims_in(key).replace(&key.name, &PostParams::default(), &changed).await?;
        self.expectations.updated(key, &written.metadata, self.context.now());
        Ok(written)
    }

    async fn write_bound(
        &self,
        key: &ObjectKey,
        mut claim: PersistentVolumeClaim,
        volume: PersistentVolume,
    ) -> Outcome {
        let spec = volume.spec.unwrap_or_default();
        let before = claim.status.clone();
        let status = claim.status.get_or_insert_default();
        let becomes_bound = status.phase.as_deref() != Some("Bound");
        status.phase = Some("Bound".to_owned());
        status.access_modes = spec.access_modes;
        // What grows or changes later is reported by whoever does it.
        if becomes_bound {
            status.capacity = spec.capacity;
            status.current_volume_attributes_class_name = spec.volume_attributes_class_name;
        }
        if claim.status != before {
            self.claims_in(key).replace_status(&key.name, &PostParams::default(), &claim).await?;
        }
        Ok(Next::Done)
    }
}
