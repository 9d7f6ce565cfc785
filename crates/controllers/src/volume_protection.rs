//! The PVC and PV protection controllers: a claim that a pod uses, and a volume that a claim is bound to, are not lost by
//! a deletion.
//!
//! Invariant: the finalizer goes only from an object that is being deleted and that nothing uses.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kedge_client::{Change, Informer, Queue, object_key};
use kedge_meta::ObjectKey;
use kube::Resource;
use kube::api::{Api, ListParams, PostParams};

use crate::error::{ReconcileError, unless_gone};
use crate::pods::{is_terminal, node_name};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Starts the controller of claims.
pub(crate) fn start_claims(mut starter: Starter<'_>) {
    let claims = starter.informer::<PersistentVolumeClaim>();
    let pods = starter.informer::<Pod>();
    let queue = Queue::new();
    starter.enqueue(&claims, &queue, |change| match change {
        Change::Deleted(_) => Vec::new(),
        change => vec![object_key(&**change.object())],
    });
    starter.enqueue(&pods, &queue, |change| {
        let pod = change.object();
        let is_over = matches!(change, Change::Deleted(_)) || is_terminal(pod);
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let names = claims_of(pod).into_iter().filter(|_| is_over);
        names.map(|name| ObjectKey::new(&namespace, name)).collect()
    });
    let workers = starter.context.config.concurrency;
    let controller = ClaimProtection { context: starter.context.clone(), claims, pods };
    starter.work(Arc::new(controller), queue, workers);
}

/// Starts the controller of volumes.
pub(crate) fn start_volumes(mut starter: Starter<'_>) {
    let volumes = starter.informer::<PersistentVolume>();
    let queue = Queue::new();
    starter.enqueue(&volumes, &queue, |change| match change {
        Change::Deleted(_) => Vec::new(),
        change => vec![object_key(&**change.object())],
    });
    let workers = starter.context.config.concurrency;
    let controller = VolumeProtection { context: starter.context.clone(), volumes };
    starter.work(Arc::new(controller), queue, workers);
}

/// The claims that a pod names, its ephemeral volumes' ones included.
pub(crate) fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => Some(source.claim_name.clone()),
            (None, Some(_)) => Some(format!("{name}-{}", volume.name)),
            (None, None) => None,
        })
        .collect()
}

/// Whether a pod holds a claim: it names it and runs, or may still come to run, on a node.
fn uses(pod: &Pod, claim: &str) -> bool {
    node_name(pod).is_some() && !is_terminal(pod) && claims_of(pod).iter().any(|name| name == claim)
}

/// What to do about an object's finalizer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Keep,
    Add,
    Remove,
}

/// The finalizer comes early and goes when nothing uses the object any more.
pub(crate) fn plan(is_deleted: bool, has_finalizer: bool, is_used: impl FnOnce() -> bool) -> Plan {
    match (is_deleted, has_finalizer) {
        (false, false) => Plan::Add,
        (true, true) if !is_used() => Plan::Remove,
        _ => Plan::Keep,
    }
}

/// The object with its finalizers changed.
pub(crate) fn apply<K: Resource + Clone>(object: &K, finalizer: &str, plan: &Plan) -> K {
    let mut object = object.clone();
    let finalizers = object.meta_mut().finalizers.get_or_insert_default();
    match plan {
        Plan::Keep => {}
        Plan::Add => finalizers.push(finalizer.to_owned()),
        Plan::Remove => finalizers.retain(|present| present != finalizer),
    }
    object
}

/// Whether an object has a finalizer.
pub(crate) fn has_finalizer<K: Resource>(object: &K, finalizer: &str) -> bool {
    object.meta().finalizers.iter().flatten().any(|present| present == finalizer)
}

struct ClaimProtection {
    context: Context,
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
}

impl Controller for ClaimProtection {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(claim) = self.claims.get(key) else { return Ok(Next::Done) };
        let is_deleted = claim.metadata.deletion_timestamp.is_some();
        let is_cached_use = || self.pods.in_namespace(&key.namespace).iter().any(|pod| uses(pod, &key.name));
        let plan = plan(is_deleted, has_finalizer(&*claim, CLAIM_FINALIZER), is_cached_use);
        if plan == Plan::Keep || plan == Plan::Remove && self.is_used(key).await? {
            return Ok(Next::Done);
        }
        let claims = Api::<PersistentVolumeClaim>::namespaced(self.context.client.clone(), &key.namespace);
        let changed = apply(&*claim, CLAIM_FINALIZER, &plan);
        unless_gone(claims.replace(&key.name, &PostParams::default(), &changed).await)?;
        Ok(Next::Done)
    }
}

impl ClaimProtection {
    /// Asks the API: a pod that came a moment ago is not in the cache.
    async fn is_used(&self, key: &ObjectKey) -> Result<bool, ReconcileError> {
        let pods = Api::<Pod>::namespaced(self.context.client.clone(), &key.namespace);
        Ok(pods.list(&ListParams::default()).await?.items.iter().any(|pod| uses(pod, &key.name)))
    }
}

struct VolumeProtection {
    context: Context,
    volumes: Informer<PersistentVolume>,
}

impl Controller for VolumeProtection {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(volume) = self.volumes.get(key) else { return Ok(Next::Done) };
        let is_bound = || volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let is_deleted = volume.metadata.deletion_timestamp.is_some();
        let plan = plan(is_deleted, has_finalizer(&*volume, VOLUME_FINALIZER), is_bound);
        if plan == Plan::Keep {
            return Ok(Next::Done);
        }
        let volumes = Api::<PersistentVolume>::all(self.context.client.clone());
        let changed = apply(&*volume, VOLUME_FINALIZER, &plan);
        unless_gone(volumes.replace(&key.name, &PostParams::default(), &changed).await)?;
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::{on_node, pod, with_phase};
    use k8s_openapi::api::core::v1::{EphemeralVolumeSource, PersistentVolumeClaimVolumeSource, Volume};

    #[test]
    fn the_finalizer_comes_early_and_goes_late() {
        assert_eq!(plan(false, false, || false), Plan::Add);
        assert_eq!(plan(false, true, || false), Plan::Keep);
        assert_eq!(plan(true, true, || true), Plan::Keep);
        assert_eq!(plan(true, true, || false), Plan::Remove);
        assert_eq!(plan(true, false, || false), Plan::Keep);
        let claim = apply(&PersistentVolumeClaim::default(), CLAIM_FINALIZER, &Plan::Add);
        assert!(has_finalizer(&claim, CLAIM_FINALIZER));
        assert!(!has_finalizer(&apply(&claim, CLAIM_FINALIZER, &Plan::Remove), CLAIM_FINALIZER));
    }

    #[test]
    fn running_pods_use_their_claims() {
        let mut user = pod("web");
        user.spec.get_or_insert_default().volumes = Some(vec![
            Volume {
                name: "data".to_owned(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: "disk".to_owned(),
                    ..PersistentVolumeClaimVolumeSource::default()
                }),
                ..Volume::default()
            },
            Volume { name: "tmp".to_owned(), ephemeral: Some(EphemeralVolumeSource::default()), ..Volume::default() },
        ]);
        assert!(uses(&user, "disk") && uses(&user, "web-tmp"));
        assert!(!uses(&user, "other"));
        assert!(!uses(&with_phase(user.clone(), "Succeeded"), "disk"));
        assert!(!uses(&on_node(user, None), "disk"));
    }
}
