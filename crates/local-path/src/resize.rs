//! Growing volumes, which is a matter of words: a directory has no size.
//!
//! Invariant: the volume says its new capacity before the claim does.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kedge_client::{EventType, object_reference};
use kube::api::{Api, PostParams};

use crate::config::ReconcileError;
use crate::run::Provisioner;
use crate::volume::{requested, storage};

impl Provisioner {
    /// Gives a claim the capacity that it asks for.
    pub(crate) async fn resize(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), ReconcileError> {
        let Some(wanted) = requested(claim).and_then(|amounts| amounts.get("storage")).cloned() else { return Ok(()) };
        let about = object_reference(claim);
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let offered = storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()));
        if storage(requested(claim)) > offered {
            let text = format!("External resizer is resizing volume {name}");
            self.recorder.event(&about, EventType::Normal, "Resizing", text);
            let mut changed = volume.clone();
            let capacity = changed.spec.get_or_insert_default().capacity.get_or_insert_default();
            capacity.insert("storage".to_owned(), wanted.clone());
            let volumes = Api::<PersistentVolume>::all(self.client.clone());
            volumes.replace(name, &PostParams::default(), &changed).await?;
        }
        let mut changed = claim.clone();
        let status = changed.status.get_or_insert_default();
        status.capacity.get_or_insert_default().insert("storage".to_owned(), wanted.clone());
        status.allocated_resources.get_or_insert_default().insert("storage".to_owned(), wanted);
        status.allocated_resource_statuses = None;
        if let Some(conditions) = &mut status.conditions {
            conditions.retain(|condition| !matches!(condition.type_.as_str(), "Resizing" | "FileSystemResizePending"));
        }
        let claim_name = claim.metadata.name.as_deref().unwrap_or_default();
        self.claims_of(claim).replace_status(claim_name, &PostParams::default(), &changed).await?;
        self.recorder.event(&about, EventType::Normal, "VolumeResizeSuccessful", "Resize volume succeeded");
        Ok(())
    }
}
