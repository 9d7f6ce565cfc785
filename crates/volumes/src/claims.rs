//! PersistentVolumeClaims whose volume is a path of this node: `local` and `hostPath` volumes.
//!
//! Not a storage plug-in: other kinds of volumes are an error that names them.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;

use crate::host_path;
use crate::pod;
use crate::set_up::Volumes;

/// The path of a claim's volume.
pub(crate) async fn path(volumes: &Volumes, pod: &Pod, claim_name: &str) -> Result<PathBuf, String> {
    let client = volumes.deps.objects.client().clone();
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), pod::namespace(pod));
    let claim = claims.get_opt(claim_name).await.map_err(|error| error.to_string())?;
    let claim = claim.ok_or_else(|| format!("persistentvolumeclaim {claim_name:?} not found"))?;
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let volume_name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|_| bound);
    let volume_name = volume_name.ok_or_else(|| format!("PVC {}/{claim_name} is not bound", pod::namespace(pod)))?;
    let volume = Api::<PersistentVolume>::all(client).get_opt(&volume_name).await.map_err(|error| error.to_string())?;
    let volume = volume.ok_or_else(|| format!("persistentvolume {volume_name:?} not found"))?;
    let source = volume.spec.unwrap_or_default();
    if let Some(local) = source.local {
        return match std::fs::metadata(&local.path) {
            Ok(_) => Ok(local.path.into()),
            Err(_) => Err(format!("path {:?} does not exist", local.path)),
        };
    }
    if let Some(host) = source.host_path {
        host_path::ensure(&host)?;
        return Ok(host.path.into());
    }
    Err(format!("no volume plugin matched for persistent volume {volume_name:?}"))
}
