//! Volumes that are there for claims that wait for their node.
//!
//! Pure. The claim that asks for least chooses first, and gets the smallest volume that will do; no volume is given twice.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kedge_meta::Quantity;

use super::is_reachable;
use crate::node_info::NodeInfo;
use crate::selectors::label_selector_matches;

/// A claim and the volume it gets.
type Binding = (Arc<PersistentVolumeClaim>, Arc<PersistentVolume>);

/// Claims with the volumes they get on a node, and the claims that get none.
pub(super) fn find_static(
    claims: &[Arc<PersistentVolumeClaim>],
    volumes: &[Arc<PersistentVolume>],
    node: &NodeInfo,
) -> (Vec<Binding>, Vec<Arc<PersistentVolumeClaim>>) {
    let mut claims = claims.to_vec();
    claims.sort_by_key(|claim| requested(claim));
    let (mut bindings, mut unbound) = (Vec::<Binding>::new(), Vec::new());
    for claim in claims {
        let is_free = |volume: &&Arc<PersistentVolume>| {
            !bindings.iter().any(|(_, chosen)| chosen.metadata.name == volume.metadata.name)
        };
        let fitting = volumes.iter().filter(is_free).filter(|volume| fits(volume, &claim, node));
        // One that is reserved for the claim comes before any other.
        let order = |volume: &&Arc<PersistentVolume>| {
            let is_open = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
            (is_open, capacity(volume), volume.metadata.name.clone())
        };
        match fitting.min_by_key(order).cloned() {
            Some(volume) => bindings.push((claim, volume)),
            None => unbound.push(claim),
        }
    }
    (bindings, unbound)
}

/// What a claim asks for.
pub(super) fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    requests.and_then(|requests| requests.get("storage")).and_then(|amount| amount.0.parse().ok()).unwrap_or_default()
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    capacity.and_then(|capacity| capacity.get("storage")).and_then(|amount| amount.0.parse().ok()).unwrap_or_default()
}

fn fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim, node: &NodeInfo) -> bool {
    let (Some(spec), Some(wants)) = (&volume.spec, &claim.spec) else { return false };
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let labels = volume.metadata.labels.clone().unwrap_or_default();
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let is_to_be_had = match &spec.claim_ref {
        None => matches!(phase, "" | "Pending" | "Available"),
        Some(reference) => {
            reference.name == claim.metadata.name
                && reference.namespace == claim.metadata.namespace
                && reference.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
        }
    };
    is_to_be_had
        && volume.metadata.deletion_timestamp.is_none()
        && name(&spec.storage_class_name) == name(&wants.storage_class_name)
        && name(&spec.volume_attributes_class_name) == name(&wants.volume_attributes_class_name)
        && mode(&spec.volume_mode) == mode(&wants.volume_mode)
        && wants.access_modes.iter().flatten().all(|wanted| modes.contains(wanted))
        && wants.selector.as_ref().is_none_or(|selector| label_selector_matches(Some(selector), &labels))
        && capacity(volume) >= requested(claim)
        && is_reachable(volume, node)
}
