//! The persistent volume binder: brings claims and volumes together, and says what state they are in.
//!
//! Makes and deletes no storage: a claim whose class has a provisioner waits for that one, and a released volume with the
//! policy Delete is left to the one that made it. Invariant: a volume is reserved for a claim (by uid) before the claim
//! names the volume.

mod claim;
mod figures;
mod match_volume;
mod plan_claim;
mod plan_volume;
mod volume;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kedge_client::{Change, Informer, Queue, object_key};
use kedge_meta::ObjectKey;

use crate::expectations::Expectations;
use crate::runtime::{Context, Controller, Outcome, Starter};

use crate::pods::name_of;
pub(crate) use match_volume::storage;
use match_volume::{class_of_claim, class_of_volume};

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let volumes = starter.informer::<PersistentVolume>();
    let claims = starter.informer::<PersistentVolumeClaim>();
    let classes = starter.informer::<StorageClass>();
    let pods = starter.informer::<Pod>();
    let known = (volumes.clone(), claims.clone());
    starter.context.metrics.show("persistentvolume-binder-controller", move |text| {
        figures::write(text, &known.0.list(), &known.1.list());
    });
    let queue = Queue::new();
    let of_claims = volumes.clone();
    starter.enqueue(&claims, &queue, move |change| {
        let claim = change.object();
        let mut keys = vec![object_key(&**claim)];
        keys.extend(of_claims.for_claim(&keys[0]).iter().map(|volume| object_key(&**volume)));
        keys
    });
    let of_volumes = claims.clone();
    starter.enqueue(&volumes, &queue, move |change| {
        let mut keys = vec![object_key(&**change.object())];
        keys.extend(concerned(change, &of_volumes));
        keys
    });
    let of_classes = claims.clone();
    starter.enqueue(&classes, &queue, move |change| match change {
        Change::Deleted(_) => Vec::new(),
        _ => of_classes.filter(|claim| !is_bound(claim)).iter().map(|claim| object_key(&**claim)).collect(),
    });
    let expectations = Expectations::default();
    let controller = Binder { context: starter.context.clone(), volumes, claims, classes, pods, expectations };
    // One worker: two claims must not choose one volume.
    starter.work(Arc::new(controller), queue, 1);
}

/// The claims that may have waited for a volume that comes, changes or goes: those that name it, the one for which it is
/// reserved, and while it is open those of its class.
fn concerned(change: &Change<PersistentVolume>, claims: &Informer<PersistentVolumeClaim>) -> Vec<ObjectKey> {
    let volume = change.object();
    let is_gone = matches!(change, Change::Deleted(_));
    let naming = claims.for_volume(name_of(&volume.metadata)).into_iter();
    let open = match volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) {
        None if !is_gone => claims.open_of_class(&class_of_volume(volume)),
        None => Vec::new(),
        Some(reference) => {
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            claims.get(&ObjectKey::new(text(&reference.namespace), text(&reference.name))).into_iter().collect()
        }
    };
    naming.chain(open).filter(|claim| is_gone || !is_bound(claim)).map(|claim| object_key(&*claim)).collect()
}

/// The volumes that a claim may be about: the one that it names, those that are reserved for it, and while it names none
/// those of its class that are open.
fn in_question(claim: &PersistentVolumeClaim, volumes: &Informer<PersistentVolume>) -> Vec<Arc<PersistentVolume>> {
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    if let Some(name) = named {
        return volumes.get(&ObjectKey::cluster(name)).into_iter().collect();
    }
    let mut found = volumes.for_claim(&object_key(claim));
    found.extend(volumes.open_of_class(&class_of_claim(claim)));
    found
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(BIND_COMPLETED))
}

struct Binder {
    context: Context,
    volumes: Informer<PersistentVolume>,
    claims: Informer<PersistentVolumeClaim>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn volume(name: &str, class: &str, claim: Option<&str>) -> PersistentVolume {
        let reference = claim.map(|name| json!({"namespace": "d", "name": name}));
        let spec = json!({"storageClassName": class, "claimRef": reference});
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    }

    fn claim(name: &str, class: &str, volume: &str, is_bound: bool) -> PersistentVolumeClaim {
        let annotations: Value = if is_bound { json!({BIND_COMPLETED: "yes"}) } else { json!({}) };
        let metadata = json!({"namespace": "d", "name": name, "annotations": annotations});
        let spec = json!({"storageClassName": class, "volumeName": volume});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn only_volumes_in_question_are_looked_at() {
        let volumes = Informer::fixed([
            volume("fast-1", "fast", None),
            volume("fast-2", "fast", None),
            volume("slow-1", "slow", None),
            volume("mine", "slow", Some("a")),
            volume("taken", "fast", Some("b")),
        ]);
        let check = |claim: PersistentVolumeClaim, expected: &[&str]| {
            let found = in_question(&claim, &volumes);
            let mut names: Vec<&str> = found.iter().map(|volume| name_of(&volume.metadata)).collect();
            names.sort_unstable();
            assert_eq!(names, expected);
        };
        check(claim("a", "fast", "", false), &["fast-1", "fast-2", "mine"]);
        check(claim("c", "", "", false), &[]);
        check(claim("c", "fast", "slow-1", false), &["slow-1"]);
        check(claim("c", "fast", "gone", true), &[]);
    }

    #[test]
    fn a_volume_concerns_those_who_wait_for_it() {
        let claims = Informer::fixed([
            claim("open", "fast", "", false),
            claim("other", "slow", "", false),
            claim("naming", "slow", "v", false),
            claim("bound", "fast", "v", true),
        ]);
        let check = |change: Change<PersistentVolume>, expected: &[&str]| {
            let mut names: Vec<String> = concerned(&change, &claims).into_iter().map(|key| key.name).collect();
            names.sort_unstable();
            assert_eq!(names, expected);
        };
        check(Change::Added(Arc::new(volume("v", "fast", None))), &["naming", "open"]);
        check(Change::Added(Arc::new(volume("w", "fast", Some("other")))), &["other"]);
        check(Change::Added(Arc::new(volume("w", "fast", Some("gone")))), &[]);
        check(Change::Deleted(Arc::new(volume("v", "fast", None))), &["bound", "naming"]);
    }
}
