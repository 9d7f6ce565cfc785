//! Doing what was planned for a volume.

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kedge_client::object_reference;
use kedge_meta::ObjectKey;
use kube::api::{Api, PostParams};

use super::Binder;
use super::plan_claim::Notice;
use super::plan_volume::{VolumePlan, plan_volume, unreserve};
use crate::error::ReconcileError;
use crate::pods::name_of;
use crate::runtime::{Next, Outcome};

impl Binder {
    pub(super) async fn reconcile_volume(&self, key: &ObjectKey) -> Outcome {
        let Some(volume) = self.volumes.get(key) else { return Ok(Next::Done) };
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let claim = reference.and_then(|reference| {
            let namespace = reference.namespace.clone().unwrap_or_default();
            self.claims.get(&ObjectKey::new(namespace, reference.name.clone().unwrap_or_default()))
        });
        match plan_volume(&volume, claim.as_deref()) {
            VolumePlan::Available => self.write_volume_phase(&volume, "Available", None).await?,
            VolumePlan::Bound => self.write_volume_phase(&volume, "Bound", None).await?,
            VolumePlan::Released => self.write_volume_phase(&volume, "Released", None).await?,
            VolumePlan::Fail(notice) => self.write_volume_phase(&volume, "Failed", Some(&notice)).await?,
            VolumePlan::Unreserve => {
                let mut changed = PersistentVolume::clone(&volume);
                unreserve(&mut changed);
                let volumes = Api::<PersistentVolume>::all(self.context.client.clone());
                volumes.replace(&key.name, &PostParams::default(), &changed).await?;
            }
            VolumePlan::Leave(None) => {}
            VolumePlan::Leave(Some(notice)) => {
                self.context.warning(&object_reference(&*volume), notice.reason, notice.text);
            }
        }
        Ok(Next::Done)
    }

    /// Writes a volume's phase where it is another one, and says why where it failed.
    pub(super) async fn write_volume_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        notice: Option<&Notice>,
    ) -> Result<(), ReconcileError> {
        if volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase) {
            return Ok(());
        }
        let mut changed = volume.clone();
        let status = changed.status.get_or_insert_default();
        status.phase = Some(phase.to_owned());
        status.message = notice.map(|notice| notice.text.clone());
        status.last_phase_transition_time = Some(Time(self.context.now()));
        let volumes = Api::<PersistentVolume>::all(self.context.client.clone());
        volumes.replace_status(name_of(&volume.metadata), &PostParams::default(), &changed).await?;
        if let Some(notice) = notice {
            self.context.warning(&object_reference(volume), notice.reason, &notice.text);
        }
        Ok(())
    }
}
