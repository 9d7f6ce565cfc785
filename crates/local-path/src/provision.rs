//! Making volumes: a directory, then the object that describes it.
//!
//! Every step can be done again: a crash between two of them is mended by the next attempt.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kedge_client::{EventType, object_reference};
use kedge_meta::ObjectKey;
use kube::api::{Api, PostParams};

use crate::config::ReconcileError;
use crate::plan::{SELECTED_NODE, class_of};
use crate::run::Provisioner;
use crate::volume::{new_volume, volume_name};

impl Provisioner {
    /// Takes a claim that any node may serve. The first node to write wins; the others see a conflict.
    pub(crate) async fn select(&self, claim: &PersistentVolumeClaim) -> Result<(), ReconcileError> {
        let mut changed = claim.clone();
        let annotations = changed.metadata.annotations.get_or_insert_default();
        annotations.insert(SELECTED_NODE.to_owned(), self.config.node_name.clone());
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        self.claims_of(claim).replace(name, &PostParams::default(), &changed).await?;
        Ok(())
    }

    /// Makes the volume of a claim.
    pub(crate) async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        host: &str,
    ) -> Result<(), ReconcileError> {
        let volume = volume_name(claim);
        if self.volumes.get(&ObjectKey::cluster(&volume)).is_some() {
            return self.directories.made(&volume);
        }
        let about = object_reference(claim);
        let (namespace, name) =
            (about.namespace.as_deref().unwrap_or_default(), about.name.as_deref().unwrap_or_default());
        let text = format!("External provisioner is provisioning volume for claim \"{namespace}/{name}\"");
        self.recorder.event(&about, EventType::Normal, "Provisioning", text);
        match self.make(claim, class, host, &volume).await {
            Ok(()) => {
                let text = format!("Successfully provisioned volume {volume}");
                self.recorder.event(&about, EventType::Normal, "ProvisioningSucceeded", text);
                Ok(())
            }
            Err(error) => {
                self.failed(claim, &error.text());
                Err(error)
            }
        }
    }

    /// Says on a claim that there will be no volume.
    pub(crate) fn failed(&self, claim: &PersistentVolumeClaim, why: &str) {
        let text = format!("failed to provision volume with StorageClass \"{}\": {why}", class_of(claim));
        self.recorder.event(&object_reference(claim), EventType::Warning, "ProvisioningFailed", text);
    }

    async fn make(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        host: &str,
        volume: &str,
    ) -> Result<(), ReconcileError> {
        let metadata = &claim.metadata;
        let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
        let path = self.directories.path(volume, namespace.unwrap_or_default(), name.unwrap_or_default());
        self.directories.make(volume, &path)?;
        let object = new_volume(claim, class, host, &path);
        match Api::<PersistentVolume>::all(self.client.clone()).create(&PostParams::default(), &object).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
            Err(error) => return Err(error.into()),
        }
        self.directories.made(volume)
    }

    /// Removes what an earlier run left half made for claims that are gone. The rest is finished with its claim.
    pub(crate) fn abandon_orphans(&self) {
        for volume in self.directories.half_made() {
            let is_made = self.volumes.get(&ObjectKey::cluster(&volume)).is_some();
            let is_wanted = || self.claims.list().iter().any(|claim| volume_name(claim) == volume);
            let result = match is_made || is_wanted() {
                true if is_made => self.directories.made(&volume),
                true => Ok(()),
                false => self.directories.abandon(&volume),
            };
            if let Err(error) = result {
                tracing::warn!(volume, error = error.text(), "a half made volume could not be tidied up");
            }
        }
    }
}
