//! The attach/detach controller: a VolumeAttachment for each CSI volume that the pods of a node need there, and none once
//! they do not and the node has let go of it.
//!
//! Attaches nothing itself: the driver's external attacher acts on the VolumeAttachments. Invariant: a volume that the
//! node says it uses is detached only from a node that is not ready for six minutes or out of service.

mod figures;
mod plan;
mod wanted;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{AttachedVolume, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec};
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::ObjectKey;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::error::{ReconcileError, is_already_exists, is_not_found, unless_gone};
use crate::pods::{name_of, node_name};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use crate::volume_protection::claims_of;
use plan::{Plan, Situation, plan_node};
use wanted::{Storage, Wanted, wanted_on};

/// A volume that is attached elsewhere is asked for again after this long.
const BLOCKED_FOR: Duration = Duration::from_secs(5);

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let controller = Arc::new(AttachDetach {
        context: starter.context.clone(),
        nodes: starter.informer(),
        pods: starter.informer(),
        claims: starter.informer(),
        volumes: starter.informer(),
        drivers: starter.informer(),
        attachments: starter.informer(),
        unwanted: Mutex::default(),
    });
    let known = controller.clone();
    starter.context.metrics.show("persistentvolume-attach-detach-controller", move |text| {
        figures::write(text, &known.pods.list(), &known.attachments.list(), &*known);
    });
    let queue = Queue::new();
    starter.enqueue(&controller.pods, &queue, |change| {
        let pod = change.object();
        let node = node_name(pod).filter(|_| !claims_of(pod).is_empty());
        node.map(ObjectKey::cluster).into_iter().collect()
    });
    starter.enqueue(&controller.nodes, &queue, |change| match change {
        Change::Updated { old, new } if !is_news(old, new) => Vec::new(),
        change => vec![object_key(&**change.object())],
    });
    starter
        .enqueue(&controller.attachments, &queue, |change| vec![ObjectKey::cluster(&change.object().spec.node_name)]);
    // What a claim is bound to, and whether a driver attaches, may become known after the pod.
    let pods = controller.pods.clone();
    starter.enqueue(&controller.claims, &queue, move |change| {
        let claim = change.object();
        let users = pods.in_namespace(claim.metadata.namespace.as_deref().unwrap_or_default());
        let uses = |pod: &&Arc<Pod>| claims_of(pod).iter().any(|name| name == name_of(&claim.metadata));
        users.iter().filter(uses).filter_map(|pod| node_name(pod)).map(ObjectKey::cluster).collect()
    });
    let nodes = controller.nodes.clone();
    starter
        .enqueue(&controller.drivers, &queue, move |_| nodes.list().iter().map(|node| object_key(&**node)).collect());
    let workers = starter.context.config.concurrency;
    starter.work(controller, queue, workers);
}

/// Whether a node's change bears on its attachments: a heartbeat does not.
fn is_news(old: &Node, new: &Node) -> bool {
    let used = |node: &Node| node.status.as_ref().and_then(|status| status.volumes_in_use.clone());
    let attached = |node: &Node| node.status.as_ref().and_then(|status| status.volumes_attached.clone());
    old.spec != new.spec
        || used(old) != used(new)
        || attached(old) != attached(new)
        || plan::is_ready(old) != plan::is_ready(new)
}

struct AttachDetach {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    drivers: Informer<CSIDriver>,
    attachments: Informer<VolumeAttachment>,
    /// Since when an attachment, by its name, is one too many.
    unwanted: Mutex<HashMap<String, Timestamp>>,
}

impl Controller for AttachDetach {
    type Key = ObjectKey;

    /// The key is a node's.
    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let node = self.nodes.get(key);
        let pods = self.pods.on_node(&key.name);
        let wanted = wanted_on(&pods, self);
        let attachments = self.attachments.list();
        let since = self.unwanted.lock().clone();
        let situation = Situation {
            node_name: &key.name,
            node: node.as_deref(),
            wanted: &wanted,
            attachments: &attachments,
            unwanted_since: &since,
            now: self.context.now(),
        };
        let plan = plan_node(&situation);
        self.remember(&attachments, &key.name, &plan);
        if let Some(node) = &node {
            self.report(node, &plan).await?;
        }
        for name in &plan.detach {
            let attachments = Api::<VolumeAttachment>::all(self.context.client.clone());
            unless_gone(attachments.delete(name, &DeleteParams::default()).await)?;
            if let Some(reason) = plan.forced.get(name) {
                self.context.metrics.resources().force_detached(reason);
            }
        }
        for volume in &plan.attach {
            self.attach(&key.name, volume).await?;
        }
        self.announce(&pods, &plan);
        let blocked = (!plan.blocked.is_empty()).then_some(BLOCKED_FOR);
        Ok(Next::Done.sooner(plan.again_after).sooner(blocked))
    }
}

impl AttachDetach {
    fn remember(&self, attachments: &[Arc<VolumeAttachment>], node: &str, plan: &Plan) {
        let mut unwanted = self.unwanted.lock();
        let here = attachments.iter().filter(|attachment| attachment.spec.node_name == node);
        for name in here.map(|attachment| name_of(&attachment.metadata)) {
            if !plan.unwanted.iter().any(|other| other == name) {
                unwanted.remove(name);
            }
        }
        // What is gone is forgotten.
        unwanted.retain(|name, _| self.attachments.contains(&ObjectKey::cluster(name)));
        for name in &plan.unwanted {
            unwanted.entry(name.clone()).or_insert_with(|| self.context.now());
        }
    }

    /// Tells the node what is attached, before anything is detached.
    async fn report(&self, node: &Node, plan: &Plan) -> Result<(), ReconcileError> {
        let shown = node.status.as_ref().and_then(|status| status.volumes_attached.clone()).unwrap_or_default();
        let entry = |name: &String| AttachedVolume { name: name.clone(), device_path: String::new() };
        let attached: Vec<AttachedVolume> = plan.attached.iter().map(entry).collect();
        if shown == attached {
            return Ok(());
        }
        let patch = json!({ "status": { "volumesAttached": attached } });
        let nodes = Api::<Node>::all(self.context.client.clone());
        let result = nodes.patch_status(name_of(&node.metadata), &PatchParams::default(), &Patch::Merge(patch)).await;
        match result {
            Err(error) if is_not_found(&error) => Ok(()),
            other => Ok(other.map(|_| ())?),
        }
    }

    async fn attach(&self, node: &str, volume: &Wanted) -> Result<(), ReconcileError> {
        let attachment = VolumeAttachment {
            metadata: ObjectMeta { name: Some(volume.attachment_name(node)), ..ObjectMeta::default() },
            spec: VolumeAttachmentSpec {
                attacher: volume.driver.clone(),
                node_name: node.to_owned(),
                source: VolumeAttachmentSource {
                    persistent_volume_name: Some(volume.volume.clone()),
                    ..VolumeAttachmentSource::default()
                },
            },
            status: None,
        };
        let attachments = Api::<VolumeAttachment>::all(self.context.client.clone());
        match attachments.create(&PostParams::default(), &attachment).await {
            Err(error) if !is_already_exists(&error) => {
                for pod in &volume.pods {
                    let text = format!(
                        "AttachVolume.Attach failed for volume \"{}\" : {}",
                        volume.volume,
                        crate::error::message_of(&error)
                    );
                    self.context.warning(pod, "FailedAttachVolume", text);
                }
                Err(error.into())
            }
            _ => Ok(()),
        }
    }

    /// Says on the pods what became of their volumes.
    fn announce(&self, pods: &[Arc<Pod>], plan: &Plan) {
        for volume in &plan.newly_attached {
            // The blank at the end is upstream's.
            let text = format!("AttachVolume.Attach succeeded for volume \"{}\" ", volume.volume);
            volume.pods.iter().for_each(|pod| self.context.normal(pod, "SuccessfulAttachVolume", &text));
        }
        for (volume, why) in &plan.failed {
            let text = format!("AttachVolume.Attach failed for volume \"{}\" : {why}", volume.volume);
            volume.pods.iter().for_each(|pod| self.context.warning(pod, "FailedAttachVolume", &text));
        }
        for (volume, elsewhere) in &plan.blocked {
            let others = self.pods.on_node(elsewhere);
            let users = wanted_on(&others, self);
            let users = users.iter().find(|other| other.volume == volume.volume);
            let users = users.map(|other| other.pods.as_slice()).unwrap_or_default();
            let here = pods.first().and_then(|pod| pod.metadata.namespace.as_deref());
            let text = format!("Multi-Attach error for volume \"{}\" {}", volume.volume, used_by(users, here));
            volume.pods.iter().for_each(|pod| self.context.warning(pod, "FailedAttachVolume", &text));
        }
    }
}

impl Storage for AttachDetach {
    fn volume_of(&self, pod: &Pod, claim: &str) -> Option<Arc<PersistentVolume>> {
        let key = ObjectKey::new(pod.metadata.namespace.clone().unwrap_or_default(), claim);
        let claim = self.claims.get(&key)?;
        let is_bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let name = claim.spec.as_ref()?.volume_name.as_deref().filter(|_| is_bound)?;
        let volume = self.volumes.get(&ObjectKey::cluster(name))?;
        let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
        (reference.uid == claim.metadata.uid).then_some(volume)
    }

    fn attaches(&self, driver: &str) -> bool {
        let driver = self.drivers.get(&ObjectKey::cluster(driver));
        driver.and_then(|driver| driver.spec.attach_required).unwrap_or(true)
    }

    fn reference(&self, pod: &Pod) -> ObjectReference {
        object_reference(pod)
    }
}

/// Who has a volume that can't be had, without telling names of other namespaces.
fn used_by(pods: &[ObjectReference], namespace: Option<&str>) -> String {
    let (own, others): (Vec<_>, Vec<_>) = pods.iter().partition(|pod| pod.namespace.as_deref() == namespace);
    let names: Vec<&str> = own.iter().filter_map(|pod| pod.name.as_deref()).collect();
    match (names.len(), others.len()) {
        (0, 0) => "Volume is already exclusively attached to one node and can't be attached to another".to_owned(),
        (0, others) => format!("Volume is already used by {others} pod(s) in different namespaces"),
        (_, 0) => format!("Volume is already used by pod(s) {}", names.join(", ")),
        (_, others) => {
            format!("Volume is already used by pod(s) {} and {others} pod(s) in different namespaces", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_of_a_volume_are_named_within_the_namespace() {
        let pod = |namespace: &str, name: &str| ObjectReference {
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        let check = |pods: &[ObjectReference], expected: &str| assert_eq!(used_by(pods, Some("d")), expected);
        check(&[], "Volume is already exclusively attached to one node and can't be attached to another");
        check(&[pod("d", "a"), pod("d", "b")], "Volume is already used by pod(s) a, b");
        check(&[pod("e", "a")], "Volume is already used by 1 pod(s) in different namespaces");
        let text = "Volume is already used by pod(s) a and 1 pod(s) in different namespaces";
        check(&[pod("d", "a"), pod("e", "b")], text);
    }
}
