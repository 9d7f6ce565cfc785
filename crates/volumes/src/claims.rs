//! PersistentVolumeClaims of pods, and the volumes that they are bound to.
//!
//! Invariant: once a pod has its volume, it keeps it while the API server is away, also after a restart: what was found is
//! noted in the pod's directory.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;

use crate::pod;
use crate::set_up::Volumes;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A claim and its volume.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedClaim {
    /// Absent where the API server is away.
    pub(crate) claim: Option<PersistentVolumeClaim>,
    pub(crate) volume: PersistentVolume,
}

enum Problem {
    Refused(String),
    Unavailable(String),
}

/// The volume of a pod's claim. `own` claims belong to the pod.
pub(crate) async fn resolve(
    volumes: &Volumes,
    pod: &Pod,
    volume: &str,
    claim_name: &str,
    own: bool,
) -> Result<ResolvedClaim, String> {
    let note = volumes.deps.dirs.claim_note(pod::uid(pod), volume);
    match fetch(volumes, pod, claim_name, own).await {
        Ok(resolved) => {
            if let Err(error) = save(&note, &resolved.volume) {
                tracing::warn!(path = %note.display(), %error, "failed to note a claim's volume for times without an API server");
            }
            Ok(resolved)
        }
        Err(Problem::Refused(message)) => Err(message),
        Err(Problem::Unavailable(message)) => {
            load(&note).map(|volume| ResolvedClaim { claim: None, volume }).ok_or(message)
        }
    }
}

async fn fetch(volumes: &Volumes, pod: &Pod, claim_name: &str, own: bool) -> Result<ResolvedClaim, Problem> {
    let namespace = pod::namespace(pod);
    let client = volumes.deps.client.clone();
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
    let claim = in_time(claims.get_opt(claim_name))
        .await
        .map_err(|error| Problem::Unavailable(format!("failed to fetch PVC from API server: {error}")))?;
    let claim = claim.ok_or_else(|| {
        Problem::Refused(format!(
            "failed to fetch PVC from API server: persistentvolumeclaims {claim_name:?} not found"
        ))
    })?;
    let volume_name = check(pod, &claim, own).map_err(Problem::Refused)?;
    let volume = in_time(Api::<PersistentVolume>::all(client).get_opt(&volume_name)).await;
    let wrap = |error: String| format!("failed to fetch PV {volume_name:?} from API server: {error}");
    let volume = volume.map_err(|error| Problem::Unavailable(wrap(error)))?;
    let volume =
        volume.ok_or_else(|| Problem::Refused(wrap(format!("persistentvolumes {volume_name:?} not found"))))?;
    let of = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()).and_then(|reference| reference.uid.clone());
    if of.is_some() && of != claim.metadata.uid {
        return Err(Problem::Refused(wrap(format!(
            "found PV object {volume_name:?} but it is not bound to the claim"
        ))));
    }
    Ok(ResolvedClaim { claim: Some(claim), volume })
}

/// The volume's name, where the pod may use the claim.
fn check(pod: &Pod, claim: &PersistentVolumeClaim, own: bool) -> Result<String, String> {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
    let is_own = owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == pod::uid(pod));
    if own && !is_own {
        let (namespace, pod) = (pod::namespace(pod), pod::name(pod));
        return Err(format!("PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err("PVC is being deleted".to_owned());
    }
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|_| bound);
    volume.filter(|volume| !volume.is_empty()).ok_or_else(|| "PVC is not bound".to_owned())
}

async fn in_time<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("timed out waiting for the API server".to_owned()),
    }
}

fn save(note: &Path, volume: &PersistentVolume) -> std::io::Result<()> {
    let text = serde_json::to_vec(volume)?;
    if std::fs::read(note).is_ok_and(|known| known == text) {
        return Ok(());
    }
    if let Some(parent) = note.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(note, text)
}

fn load(note: &Path) -> Option<PersistentVolume> {
    serde_json::from_slice(&std::fs::read(note).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_gets_only_bound_claims_and_its_own() {
        let pod: Pod =
            serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "u" } })).unwrap();
        let check = |owner: &str, phase: &str, own: bool, expected: Result<&str, &str>| {
            let owner = json!({ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true });
            let claim = json!({
                "metadata": { "name": "c", "ownerReferences": [owner] },
                "spec": { "volumeName": "pv" }, "status": { "phase": phase },
            });
            let claim = serde_json::from_value(claim).unwrap();
            let got = super::check(&pod, &claim, own);
            assert_eq!(got.as_deref().map_err(String::as_str), expected);
        };
        check("other", "Bound", false, Ok("pv"));
        check("other", "Bound", true, Err("PVC ns/c was not created for pod ns/p (pod is not owner)"));
        check("u", "Bound", true, Ok("pv"));
        check("u", "Pending", true, Err("PVC is not bound"));
    }

    #[test]
    fn a_note_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let note = directory.path().join("v/volume.json");
        assert!(load(&note).is_none());
        let mut volume = PersistentVolume::default();
        volume.metadata.name = Some("pv".to_owned());
        save(&note, &volume).unwrap();
        assert_eq!(load(&note), Some(volume));
    }
}
