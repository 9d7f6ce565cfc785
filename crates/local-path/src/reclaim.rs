//! Removing volumes: the directory first, then the object.
//!
//! Invariant: the finalizer goes after the directory, so that no crash makes a directory nobody's.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::PersistentVolume;
use kedge_client::{EventType, object_reference};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

use crate::config::ReconcileError;
use crate::run::Provisioner;
use crate::volume::FINALIZER;

impl Provisioner {
    /// Adds or removes the finalizer.
    pub(crate) async fn set_finalizer(&self, volume: &PersistentVolume, present: bool) -> Result<(), ReconcileError> {
        let mut changed = volume.clone();
        let finalizers = changed.metadata.finalizers.get_or_insert_default();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        if present {
            finalizers.push(FINALIZER.to_owned());
        }
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        match Api::<PersistentVolume>::all(self.client.clone()).replace(name, &PostParams::default(), &changed).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => Ok(other.map(|_| ())?),
        }
    }

    /// Removes a volume that nobody has a claim to any more.
    pub(crate) async fn delete(&self, volume: &PersistentVolume) -> Result<(), ReconcileError> {
        if let Err(error) = self.delete_directory(volume).await {
            let about = object_reference(volume);
            self.recorder.event(&about, EventType::Warning, "VolumeFailedDelete", error.text());
            return Err(error);
        }
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let volumes = Api::<PersistentVolume>::all(self.client.clone());
        if volume.metadata.deletion_timestamp.is_none() {
            let preconditions = Preconditions { uid: volume.metadata.uid.clone(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match volumes.delete(name, &parameters).await {
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
                other => other.map(|_| ())?,
            }
        }
        // The object as it is now: the deletion changed it.
        match volumes.get_opt(name).await? {
            Some(fresh) if fresh.metadata.uid == volume.metadata.uid => self.set_finalizer(&fresh, false).await,
            _ => Ok(()),
        }
    }

    async fn delete_directory(&self, volume: &PersistentVolume) -> Result<(), ReconcileError> {
        let name = volume.metadata.name.clone().unwrap_or_default();
        let local = volume.spec.as_ref().and_then(|spec| spec.local.as_ref());
        let Some(path) = local.map(|local| PathBuf::from(&local.path)) else {
            return Err(ReconcileError::Unsupported(format!("the volume {name} is no local path")));
        };
        let directories = self.directories.clone();
        // Deep trees take their time.
        let removed = tokio::task::spawn_blocking(move || directories.remove(&name, &path)).await;
        removed.unwrap_or_else(|error| Err(ReconcileError::Unsupported(error.to_string())))
    }
}
