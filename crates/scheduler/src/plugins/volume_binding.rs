//! VolumeBinding: claims must exist and be bound (or wait for their first consumer), and bound volumes must be reachable
//! from the node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Volume};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::framework::{Cycle, Evaluation, Plugin, Surroundings, Verdict};
use crate::node_info::{NodeInfo, PodInfo};
use crate::selectors::node_selector_matches;

pub(crate) struct VolumeBinding;

struct Volumes {
    refusal: Option<String>,
    bound: Vec<Arc<PersistentVolume>>,
}

/// How far a claim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BindingMode {
    /// Bound to a volume.
    Bound,
    /// Waits for the volume controller.
    Immediate,
    /// Waits for a pod to be placed.
    WaitForFirstConsumer,
}

/// How far a claim is.
pub(crate) fn binding_mode(claim: &PersistentVolumeClaim, classes: &[Arc<StorageClass>]) -> BindingMode {
    let spec = claim.spec.as_ref();
    if spec.and_then(|spec| spec.volume_name.as_deref()).is_some_and(|name| !name.is_empty()) {
        return BindingMode::Bound;
    }
    let class = spec.and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
    let class = classes.iter().find(|candidate| candidate.metadata.name.as_deref() == Some(class));
    match class.and_then(|class| class.volume_binding_mode.as_deref()) {
        Some("WaitForFirstConsumer") => BindingMode::WaitForFirstConsumer,
        _ => BindingMode::Immediate,
    }
}

/// The name of the claim behind a volume, if there is one.
fn claim_name(volume: &Volume, pod: &PodInfo) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.key.name, volume.name)),
        (None, None) => None,
    }
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn prepare<'a>(&self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let volumes = cycle.pod.pod.spec.as_ref()?.volumes.as_deref().unwrap_or_default();
        let names: Vec<String> = volumes.iter().filter_map(|volume| claim_name(volume, cycle.pod)).collect();
        if names.is_empty() {
            return None;
        }
        Some(Box::new(look_up(cycle.pod.namespace(), &names, cycle.surroundings)))
    }
}

fn look_up(namespace: &str, names: &[String], surroundings: &Surroundings) -> Volumes {
    let mut volumes = Volumes { refusal: None, bound: Vec::new() };
    for name in names {
        let claim = surroundings.claims.iter().find(|claim| {
            claim.metadata.namespace.as_deref() == Some(namespace) && claim.metadata.name.as_ref() == Some(name)
        });
        let Some(claim) = claim else {
            volumes.refusal = Some(format!("persistentvolumeclaim \"{name}\" not found"));
            return volumes;
        };
        if claim.metadata.deletion_timestamp.is_some() {
            volumes.refusal = Some(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            return volumes;
        }
        match binding_mode(claim, &surroundings.storage_classes) {
            BindingMode::Immediate => {
                volumes.refusal = Some("pod has unbound immediate PersistentVolumeClaims".to_owned());
                return volumes;
            }
            BindingMode::WaitForFirstConsumer => {}
            BindingMode::Bound => {
                let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_ref());
                let volume = surroundings.volumes.iter().find(|volume| volume.metadata.name.as_ref() == wanted);
                volumes.bound.extend(volume.cloned());
            }
        }
    }
    volumes
}

impl Evaluation for Volumes {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        if let Some(refusal) = &self.refusal {
            return Verdict::Unresolvable(refusal.clone());
        }
        let reachable = |volume: &Arc<PersistentVolume>| {
            let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
            affinity
                .and_then(|affinity| affinity.required.as_ref())
                .is_none_or(|selector| node_selector_matches(selector, node))
        };
        match self.bound.iter().all(reachable) {
            true => Verdict::Fits,
            false => Verdict::Unresolvable("node(s) didn't match PersistentVolume's node affinity".to_owned()),
        }
    }
}
