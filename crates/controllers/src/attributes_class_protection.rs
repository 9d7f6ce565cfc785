//! The VolumeAttributesClass protection controller: a class that a volume or a claim names is not lost by a deletion.
//!
//! Invariant: the finalizer goes only from a class that is being deleted and that nothing names.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kedge_client::{Change, Informer, Queue, object_key};
use kedge_meta::ObjectKey;
use kedge_quota::attributes_classes;
use kube::Resource;
use kube::api::{Api, PostParams};

use crate::error::unless_gone;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use crate::volume_protection::{Plan, apply, has_finalizer, plan};

const FINALIZER: &str = "kubernetes.io/vac-protection";

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let controller = Protection {
        context: starter.context.clone(),
        classes: starter.informer(),
        volumes: starter.informer(),
        claims: starter.informer(),
    };
    let queue = Queue::new();
    starter.enqueue(&controller.classes, &queue, |change| match change {
        Change::Deleted(_) => Vec::new(),
        change => vec![object_key(&**change.object())],
    });
    starter.enqueue(&controller.volumes, &queue, |change| let_go(change, of_volume));
    starter.enqueue(&controller.claims, &queue, |change| let_go(change, attributes_classes));
    let workers = starter.context.config.concurrency;
    starter.work(Arc::new(controller), queue, workers);
}

/// The class that a volume has.
fn of_volume(volume: &PersistentVolume) -> BTreeSet<&str> {
    let class = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    class.into_iter().collect()
}

/// The classes that an object no longer names.
fn let_go<K: Resource + Clone>(change: &Change<K>, names: impl Fn(&K) -> BTreeSet<&str>) -> Vec<ObjectKey> {
    let gone: Vec<&str> = match change {
        Change::Added(_) => Vec::new(),
        Change::Updated { old, new } => names(old).difference(&names(new)).copied().collect(),
        Change::Deleted(old) => names(old).into_iter().collect(),
    };
    gone.into_iter().map(|class| ObjectKey::new("", class)).collect()
}

struct Protection {
    context: Context,
    classes: Informer<VolumeAttributesClass>,
    volumes: Informer<PersistentVolume>,
    claims: Informer<PersistentVolumeClaim>,
}

impl Controller for Protection {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(class) = self.classes.get(key) else { return Ok(Next::Done) };
        let is_used = || {
            let name = key.name.as_str();
            self.volumes.list().iter().any(|volume| of_volume(volume).contains(name))
                || self.claims.list().iter().any(|claim| attributes_classes(claim).contains(name))
        };
        let is_deleted = class.metadata.deletion_timestamp.is_some();
        let plan = plan(is_deleted, has_finalizer(&*class, FINALIZER), is_used);
        if plan == Plan::Keep {
            return Ok(Next::Done);
        }
        let classes = Api::<VolumeAttributesClass>::all(self.context.client.clone());
        unless_gone(classes.replace(&key.name, &PostParams::default(), &apply(&*class, FINALIZER, &plan)).await)?;
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_is_let_go_when_neither_wish_nor_status_names_it() {
        let claim = |wanted: &str, current: &str, target: &str| -> Arc<PersistentVolumeClaim> {
            let claim = json!({
                "spec": { "volumeAttributesClassName": wanted },
                "status": { "currentVolumeAttributesClassName": current,
                    "modifyVolumeStatus": { "status": "InProgress", "targetVolumeAttributesClassName": target } },
            });
            Arc::new(serde_json::from_value(claim).unwrap())
        };
        let names = |change: &Change<PersistentVolumeClaim>| {
            let_go(change, attributes_classes).into_iter().map(|key| key.name).collect::<Vec<_>>()
        };
        let update = |old, new| Change::Updated { old, new };
        assert!(names(&update(claim("a", "a", ""), claim("b", "a", "b"))).is_empty());
        assert_eq!(names(&update(claim("b", "a", "b"), claim("b", "b", ""))), ["a"]);
        assert_eq!(names(&update(claim("b", "a", "b"), claim("a", "a", ""))), ["b"]);
        assert_eq!(names(&Change::Deleted(claim("b", "a", "b"))), ["a", "b"]);
        assert!(names(&Change::Added(claim("b", "a", "b"))).is_empty());
    }
}
