//! What is to be done about a claim or a volume, by one node's provisioner.
//!
//! Pure. Invariants: a claim is this node's business only if it was given to this node; a volume is only if its affinity
//! names this host.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::class::PROVISIONER;
use crate::volume::{FINALIZER, annotation, host_of, is_ours, requested, storage};

pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONERS: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// What to do about a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClaimStep {
    Nothing,
    /// It may live on any node: give it to this one.
    Select,
    /// Make its volume.
    Provision,
    /// Its volume is to grow.
    Resize,
    /// It asks for what is not on offer.
    Refuse(String),
}

/// What to do about a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VolumeStep {
    Nothing,
    /// Its directory must not be forgotten when it is deleted.
    AddFinalizer,
    /// Its directory stays when it is deleted.
    RemoveFinalizer,
    /// Remove the directory, then the object.
    Delete,
}

/// The storage class that a claim names.
pub(crate) fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let named = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(&claim.metadata, CLASS_ANNOTATION).or(named).unwrap_or_default()
}

/// What to do about a claim; `volume` is the one it is bound to.
pub(crate) fn plan_claim(
    claim: &PersistentVolumeClaim,
    class: Option<&StorageClass>,
    volume: Option<&PersistentVolume>,
    (node, host): (&str, &str),
) -> ClaimStep {
    let is_bound =
        claim.spec.as_ref().is_some_and(|spec| spec.volume_name.as_ref().is_some_and(|name| !name.is_empty()));
    if is_bound {
        let is_here = |volume: &&PersistentVolume| is_ours(volume) && host_of(volume) == Some(host);
        return match volume.filter(is_here) {
            Some(volume) if must_grow(claim, volume) => ClaimStep::Resize,
            _ => ClaimStep::Nothing,
        };
    }
    let is_asked = PROVISIONERS.iter().any(|key| annotation(&claim.metadata, key) == Some(PROVISIONER));
    let Some(class) = class.filter(|class| class.provisioner == PROVISIONER) else { return ClaimStep::Nothing };
    if !is_asked || claim.metadata.deletion_timestamp.is_some() {
        return ClaimStep::Nothing;
    }
    let binds_late = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    match annotation(&claim.metadata, SELECTED_NODE) {
        Some(selected) if selected != node => ClaimStep::Nothing,
        None if binds_late => ClaimStep::Nothing,
        selected => match (refusal(claim, class), selected) {
            (Some(why), _) => ClaimStep::Refuse(why),
            (None, None) => ClaimStep::Select,
            (None, Some(_)) => ClaimStep::Provision,
        },
    }
}

/// Whether a claim asks for more than its volume or its own status says it has.
fn must_grow(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let status = claim.status.as_ref();
    let is_bound = status.and_then(|status| status.phase.as_deref()) == Some("Bound");
    let shown = storage(status.and_then(|status| status.capacity.as_ref()));
    let offered = storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()));
    let wanted = storage(requested(claim));
    is_bound && claim.metadata.deletion_timestamp.is_none() && (wanted > shown || wanted > offered)
}

/// Why no volume can be made for a claim.
fn refusal(claim: &PersistentVolumeClaim, class: &StorageClass) -> Option<String> {
    let spec = claim.spec.as_ref()?;
    let mut modes = spec.access_modes.iter().flatten();
    let shared = modes.find(|mode| !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod"));
    if let Some(mode) = shared {
        return Some(format!("access mode {mode} is not supported: only ReadWriteOnce and ReadWriteOncePod are"));
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Some("volume mode Block is not supported: volumes are directories".to_owned());
    }
    if spec.selector.is_some() {
        return Some("claim Selector is not supported".to_owned());
    }
    if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        return Some("data sources are not supported: volumes start empty".to_owned());
    }
    if spec.volume_attributes_class_name.as_ref().is_some_and(|name| !name.is_empty()) {
        return Some("volume attributes classes are not supported".to_owned());
    }
    let parameter = class.parameters.as_ref().and_then(|parameters| parameters.keys().next());
    parameter.map(|name| format!("parameter {name} is not known to {PROVISIONER}, which takes none"))
}

/// What to do about a volume.
pub(crate) fn plan_volume(volume: &PersistentVolume, host: &str) -> VolumeStep {
    if !is_ours(volume) || host_of(volume) != Some(host) {
        return VolumeStep::Nothing;
    }
    let spec = volume.spec.as_ref();
    let is_deleted = volume.metadata.deletion_timestamp.is_some();
    let has_finalizer = volume.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let deletes = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()) == Some("Delete");
    let was_claimed = spec.is_some_and(|spec| spec.claim_ref.is_some());
    match (deletes, has_finalizer) {
        (false, true) => VolumeStep::RemoveFinalizer,
        (false, false) => VolumeStep::Nothing,
        (true, false) if is_deleted => VolumeStep::Nothing,
        (true, _) if phase == "Released" && was_claimed => VolumeStep::Delete,
        (true, false) => VolumeStep::AddFinalizer,
        (true, true) => VolumeStep::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::new_volume;
    use serde_json::{Value, json};

    fn class(mode: &str) -> StorageClass {
        serde_json::from_value(json!({
            "metadata": {"name": "local-path"}, "provisioner": PROVISIONER, "volumeBindingMode": mode,
            "reclaimPolicy": "Delete",
        }))
        .unwrap()
    }

    fn claim(node: Option<&str>, spec: Value) -> PersistentVolumeClaim {
        let mut annotations = json!({"volume.kubernetes.io/storage-provisioner": PROVISIONER});
        if let Some(node) = node {
            annotations[SELECTED_NODE] = json!(node);
        }
        let mut value = json!({
            "metadata": {"name": "data", "namespace": "d", "uid": "1", "annotations": annotations},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local-path",
                     "resources": {"requests": {"storage": "1Gi"}}},
        });
        value["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_claim_is_served_by_the_node_it_was_given_to() {
        let check = |claim: &PersistentVolumeClaim, class: Option<&StorageClass>, expected: ClaimStep| {
            assert_eq!(plan_claim(claim, class, None, ("n1", "host-1")), expected);
        };
        let (late, at_once) = (class("WaitForFirstConsumer"), class("Immediate"));
        check(&claim(Some("n1"), json!({})), Some(&late), ClaimStep::Provision);
        check(&claim(Some("n2"), json!({})), Some(&late), ClaimStep::Nothing);
        check(&claim(None, json!({})), Some(&late), ClaimStep::Nothing);
        check(&claim(None, json!({})), Some(&at_once), ClaimStep::Select);
        check(&claim(Some("n1"), json!({})), None, ClaimStep::Nothing);
        let mut others = late.clone();
        others.provisioner = "example.com/other".to_owned();
        check(&claim(Some("n1"), json!({})), Some(&others), ClaimStep::Nothing);
        let mut unasked = claim(Some("n1"), json!({}));
        unasked.metadata.annotations.as_mut().unwrap().remove("volume.kubernetes.io/storage-provisioner");
        check(&unasked, Some(&late), ClaimStep::Nothing);
        check(&claim(Some("n1"), json!({"volumeName": "v"})), Some(&late), ClaimStep::Nothing);
    }

    #[test]
    fn what_is_not_on_offer_is_refused() {
        let check = |spec: Value, text: &str| {
            let step = plan_claim(&claim(Some("n1"), spec), Some(&class("Immediate")), None, ("n1", "host-1"));
            assert!(matches!(&step, ClaimStep::Refuse(why) if why.contains(text)), "{step:?}");
        };
        check(json!({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}), "access mode ReadWriteMany is not supported");
        check(json!({"volumeMode": "Block"}), "Block is not supported");
        check(json!({"selector": {}}), "Selector is not supported");
        check(json!({"dataSource": {"kind": "VolumeSnapshot", "name": "s"}}), "data sources");
        check(json!({"volumeAttributesClassName": "gold"}), "volume attributes");
        let mut odd = class("Immediate");
        odd.parameters = Some([("nodePath".to_owned(), "/x".to_owned())].into());
        let step = plan_claim(&claim(Some("n1"), json!({})), Some(&odd), None, ("n1", "host-1"));
        assert!(matches!(&step, ClaimStep::Refuse(why) if why.contains("nodePath")), "{step:?}");
    }

    #[test]
    fn bound_claims_grow_with_their_volume() {
        let mut bound = claim(Some("n1"), json!({"volumeName": "pvc-1"}));
        let volume = new_volume(&bound, &class("Immediate"), "host-1", "/v/pvc-1".as_ref());
        let mut check = |wanted: &str, shown: &str, host: &str, expected: ClaimStep| {
            let status = json!({"phase": "Bound", "capacity": {"storage": shown}});
            bound.status = serde_json::from_value(status).unwrap();
            let requests = json!({"requests": {"storage": wanted}});
            bound.spec.as_mut().unwrap().resources = serde_json::from_value(requests).unwrap();
            assert_eq!(plan_claim(&bound, None, Some(&volume), ("n1", host)), expected, "{wanted} {shown}");
        };
        check("1Gi", "1Gi", "host-1", ClaimStep::Nothing);
        check("2Gi", "1Gi", "host-1", ClaimStep::Resize);
        check("1Gi", "512Mi", "host-1", ClaimStep::Resize);
        check("2Gi", "1Gi", "host-2", ClaimStep::Nothing);
    }

    #[test]
    fn a_volume_goes_when_it_is_released_and_its_policy_says_so() {
        let check = |policy: &str, phase: &str, finalizer: bool, deleted: bool, expected: VolumeStep| {
            let mut volume = new_volume(&claim(None, json!({})), &class("Immediate"), "host-1", "/v/pvc-1".as_ref());
            volume.spec.as_mut().unwrap().persistent_volume_reclaim_policy = Some(policy.to_owned());
            volume.status = serde_json::from_value(json!({"phase": phase})).unwrap();
            volume.metadata.finalizers = finalizer.then(|| vec![FINALIZER.to_owned()]);
            volume.metadata.deletion_timestamp =
                deleted.then(|| serde_json::from_value(json!("2026-01-02T03:04:05Z")).unwrap());
            assert_eq!(plan_volume(&volume, "host-1"), expected, "{policy} {phase} {finalizer} {deleted}");
            assert_eq!(plan_volume(&volume, "host-2"), VolumeStep::Nothing);
            volume.metadata.annotations = None;
            assert_eq!(plan_volume(&volume, "host-1"), VolumeStep::Nothing);
        };
        check("Delete", "Bound", true, false, VolumeStep::Nothing);
        check("Delete", "Bound", true, true, VolumeStep::Nothing);
        check("Delete", "Bound", false, false, VolumeStep::AddFinalizer);
        check("Delete", "Released", true, false, VolumeStep::Delete);
        check("Delete", "Released", true, true, VolumeStep::Delete);
        check("Delete", "Released", false, true, VolumeStep::Nothing);
        check("Retain", "Released", true, false, VolumeStep::RemoveFinalizer);
        check("Retain", "Released", false, true, VolumeStep::Nothing);
        check("Retain", "Bound", false, false, VolumeStep::Nothing);
    }
}
