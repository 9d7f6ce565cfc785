//! The ephemeral volume controller: makes the claims of a pod's generic ephemeral volumes.
//!
//! Invariant: a claim of the name that does not belong to the pod is never touched.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::ObjectKey;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::error::{ReconcileError, is_already_exists, is_namespace_terminating, message_of};
use crate::owners::{controller_key, controller_reference, is_controlled_by};
use crate::pods::name_of;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let pods = starter.informer::<Pod>();
    let claims = starter.informer::<PersistentVolumeClaim>();
    let queue = Queue::new();
    starter.enqueue(&pods, &queue, |change| match change {
        Change::Added(pod) if ephemeral(pod).next().is_some() => vec![object_key(&**pod)],
        _ => Vec::new(),
    });
    starter.enqueue(&claims, &queue, |change| match change {
        Change::Deleted(claim) => controller_key::<Pod>(&claim.metadata).into_iter().collect(),
        _ => Vec::new(),
    });
    let workers = starter.context.config.concurrency;
    let controller = EphemeralVolumes { context: starter.context.clone(), pods, claims };
    starter.work(Arc::new(controller), queue, workers);
}

fn ephemeral(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
    volumes.filter(|volume| volume.ephemeral.is_some())
}

struct EphemeralVolumes {
    context: Context,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
}

impl Controller for EphemeralVolumes {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(pod) = self.pods.get(key).filter(|pod| pod.metadata.deletion_timestamp.is_none()) else {
            return Ok(Next::Done);
        };
        for volume in ephemeral(&pod) {
            let Some(claim) = plan_claim(&pod, volume) else { continue };
            let name = name_of(&claim.metadata);
            if let Some(known) = self.claims.get(&ObjectKey::new(&key.namespace, name)) {
                if !is_controlled_by(&known.metadata, &pod.metadata) {
                    let text = format!("PVC {}/{name} was not created for pod {key} (pod is not owner)", key.namespace);
                    return Err(ReconcileError::Object(text));
                }
                continue;
            }
            let claims = Api::<PersistentVolumeClaim>::namespaced(self.context.client.clone(), &key.namespace);
            let created = claims.create(&PostParams::default(), &claim).await;
            self.context.metrics.workloads().claim_asked_for(created.is_ok());
            match created {
                Ok(_) => {}
                Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) => {}
                Err(error) => {
                    let text = format!("ephemeral volume controller: create PVC {name}: {}", message_of(&error));
                    self.context.warning(&object_reference(&*pod), "FailedBinding", text);
                    return Err(error.into());
                }
            }
        }
        Ok(Next::Done)
    }
}

fn plan_claim(pod: &Pod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let metadata = template.metadata.clone().unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", name_of(&pod.metadata), volume.name)),
            namespace: pod.metadata.namespace.clone(),
            labels: metadata.labels,
            annotations: metadata.annotations,
            owner_references: Some(vec![controller_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::pod;
    use k8s_openapi::api::core::v1::{EphemeralVolumeSource, PersistentVolumeClaimTemplate};

    #[test]
    fn the_claim_belongs_to_the_pod() {
        let pod = pod("web");
        let source = EphemeralVolumeSource { volume_claim_template: Some(PersistentVolumeClaimTemplate::default()) };
        let volume = Volume { name: "tmp".to_owned(), ephemeral: Some(source), ..Volume::default() };
        let claim = plan_claim(&pod, &volume).unwrap();
        assert_eq!(claim.metadata.name.as_deref(), Some("web-tmp"));
        assert!(is_controlled_by(&claim.metadata, &pod.metadata));
        assert_eq!(plan_claim(&pod, &Volume::default()), None);
    }
}
