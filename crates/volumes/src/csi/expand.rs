//! A volume that has become larger: its file system follows, and the claim says so.
//!
//! Source: KEP-284 (resize), the node's part. Invariant: the claim shows the new size only after the driver has made it.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kedge_csi::{AccessType, Publish};
use kedge_meta::Quantity;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::PLUGIN;
use super::mount::secrets;
use crate::claims::ResolvedClaim;
use crate::csi::source::CsiSource;
use crate::pod;
use crate::set_up::{VolumeNews, Volumes};

/// Makes the file system as large as the volume, where the claim is behind; whether that was done.
pub(crate) async fn catch_up(
    volumes: &Volumes,
    pod: &Pod,
    source: &CsiSource,
    resolved: &ResolvedClaim,
) -> Result<bool, String> {
    let Some((claim, wanted, size)) = behind(resolved) else { return Ok(false) };
    let registered = volumes.csi.drivers.get(&source.driver)?;
    let capabilities = registered.capabilities().await.map_err(|error| error.to_string())?;
    if !capabilities.expand {
        return Ok(false);
    }
    let place = volumes.deps.dirs.csi_staging(&source.driver, &source.handle);
    let publish = Publish {
        volume_id: source.handle.clone(),
        staging_path: capabilities.stage.then(|| place.join("globalmount")),
        target_path: volumes.deps.dirs.volume(pod::uid(pod), PLUGIN, &source.spec_name).join("mount"),
        read_only: source.read_only,
        access_type: AccessType::Mount { fs_type: source.fs_type.clone(), flags: Vec::new(), group: None },
        access_mode: source.access_mode(capabilities),
        publish_context: Default::default(),
        volume_context: Default::default(),
        secrets: secrets(volumes, source.expand_secret.as_ref(), "NodeExpandSecretRef").await?,
    };
    {
        let _lock = volumes.csi.locks.lock(&source.driver, &source.handle).await;
        registered.driver.expand(&publish, wanted.units()).await.map_err(|error| error.to_string())?;
    }
    let claims = Api::<PersistentVolumeClaim>::namespaced(volumes.deps.client.clone(), pod::namespace(pod));
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let patch = Patch::Merge(finished(claim, size));
    claims.patch_status(name, &PatchParams::default(), &patch).await.map_err(|error| error.to_string())?;
    Ok(true)
}

/// What the pod's events tell of it.
pub(crate) fn news(volume: &str, node: &str, grown: Result<bool, String>) -> Option<VolumeNews> {
    match grown {
        Ok(false) => None,
        Ok(true) => Some(VolumeNews {
            warning: false,
            reason: "FileSystemResizeSuccessful",
            message: format!("MountVolume.NodeExpandVolume succeeded for volume {volume:?} {node}"),
        }),
        Err(error) => Some(VolumeNews {
            warning: true,
            reason: "VolumeResizeFailed",
            message: format!("NodeExpandVolume.NodeExpandVolume failed for volume {volume:?} : {error}"),
        }),
    }
}

/// The claim, if its file system is smaller than its volume.
fn behind(resolved: &ResolvedClaim) -> Option<(&PersistentVolumeClaim, Quantity, &str)> {
    let claim = resolved.claim.as_ref()?;
    let volume = resolved.volume.spec.as_ref()?;
    let has = claim.status.as_ref()?.capacity.as_ref()?.get("storage")?.0.parse::<Quantity>().ok()?;
    let size = volume.capacity.as_ref()?.get("storage")?.0.as_str();
    let wanted = size.parse::<Quantity>().ok()?;
    (volume.volume_mode.as_deref() != Some("Block") && has < wanted).then_some((claim, wanted, size))
}

/// The patch of a claim whose file system has the size of its volume.
fn finished(claim: &PersistentVolumeClaim, size: &str) -> Value {
    let status = claim.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.clone()).unwrap_or_default();
    let rest: Vec<_> = conditions
        .into_iter()
        .filter(|condition| !matches!(condition.type_.as_str(), "Resizing" | "FileSystemResizePending"))
        .collect();
    let mut patch = json!({ "status": { "capacity": { "storage": size }, "conditions": rest } });
    if status.is_some_and(|status| status.allocated_resource_statuses.is_some()) {
        patch["status"]["allocatedResourceStatuses"] = json!({ "storage": null });
    }
    patch
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PersistentVolume;

    use super::*;

    fn resolved(claim: &str, volume: &str, mode: &str) -> ResolvedClaim {
        let claim = json!({ "metadata": { "name": "c" }, "status": { "capacity": { "storage": claim }, "conditions": [
            { "type": "FileSystemResizePending", "status": "True" }, { "type": "Other", "status": "True" }
        ] } });
        let volume = json!({ "metadata": {}, "spec": { "capacity": { "storage": volume }, "volumeMode": mode } });
        ResolvedClaim {
            claim: serde_json::from_value::<PersistentVolumeClaim>(claim).ok(),
            volume: serde_json::from_value::<PersistentVolume>(volume).unwrap(),
        }
    }

    #[test]
    fn a_claim_follows_its_volume() {
        let wanted = |claim: &str, volume: &str, mode: &str| {
            behind(&resolved(claim, volume, mode)).map(|(_, _, size)| size.to_owned())
        };
        assert_eq!(wanted("1Gi", "2Gi", "Filesystem"), Some("2Gi".to_owned()));
        assert_eq!(wanted("2Gi", "2Gi", "Filesystem"), None);
        assert_eq!(wanted("1Gi", "2Gi", "Block"), None);
        let of = resolved("1Gi", "2Gi", "Filesystem");
        let patch = finished(of.claim.as_ref().unwrap(), "2Gi");
        assert_eq!(patch["status"]["capacity"]["storage"], "2Gi");
        assert_eq!(patch["status"]["conditions"], json!([{ "type": "Other", "status": "True" }]));
        assert_eq!(news("pv", "n", Ok(false)), None);
        let told = news("pv", "n", Ok(true)).unwrap();
        let text = "MountVolume.NodeExpandVolume succeeded for volume \"pv\" n";
        assert_eq!((told.warning, told.reason, told.message.as_str()), (false, "FileSystemResizeSuccessful", text));
        assert!(news("pv", "n", Err("no".to_owned())).unwrap().warning);
    }
}
