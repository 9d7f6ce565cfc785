//! Which volume a claim is bound to.
//!
//! Pure. A claim gets the smallest volume that is large enough and of its class, modes and selector.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kedge_meta::Quantity;

use crate::owners::{selector_of, selects};
use crate::pods::name_of;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The amount of storage in a list of resources.
pub(crate) fn storage(amounts: Option<&BTreeMap<String, ApiQuantity>>) -> Quantity {
    amounts.and_then(|amounts| amounts.get("storage")).and_then(|amount| amount.0.parse().ok()).unwrap_or_default()
}

/// The storage class of a claim; empty for none.
pub(super) fn class_of_claim(claim: &PersistentVolumeClaim) -> String {
    let annotated = claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(CLASS_ANNOTATION));
    let named = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    annotated.or(named).cloned().unwrap_or_default()
}

/// The storage class of a volume; empty for none.
pub(super) fn class_of_volume(volume: &PersistentVolume) -> String {
    let annotated = volume.metadata.annotations.as_ref().and_then(|annotations| annotations.get(CLASS_ANNOTATION));
    let named = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    annotated.or(named).cloned().unwrap_or_default()
}

/// Whether a volume is reserved for a claim, by name or by uid as well.
pub(super) fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()).is_some_and(|reference| {
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && reference.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
    })
}

fn is_reserved(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some())
}

fn mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

/// Whether a volume has what a claim asks for, its reservation aside.
fn satisfies(
    volume: &PersistentVolume,
    spec: &PersistentVolumeSpec,
    claim: &PersistentVolumeClaim,
    wants: &PersistentVolumeClaimSpec,
) -> bool {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let requests = wants.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let has_modes = wants.access_modes.iter().flatten().all(|wanted| modes.contains(wanted));
    let attributes = |name: &Option<String>| name.clone().unwrap_or_default();
    let is_selected = match &wants.selector {
        None => true,
        Some(selector) => selector_of(Some(selector)).is_some_and(|selector| selects(&selector, &volume.metadata)),
    };
    has_modes
        && is_selected
        && class_of_volume(volume) == class_of_claim(claim)
        && attributes(&spec.volume_attributes_class_name) == attributes(&wants.volume_attributes_class_name)
        && mode(spec.volume_mode.as_ref()) == mode(wants.volume_mode.as_ref())
        && storage(spec.capacity.as_ref()) >= storage(requests)
}

/// Why a claim can't have the volume that it names, in upstream's words.
pub(super) fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    let (spec, wants) = (volume.spec.as_ref()?, claim.spec.as_ref()?);
    let requests = wants.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if volume.metadata.deletion_timestamp.is_some() {
        return Some(format!("the volume is marked for deletion \"{}\"", name_of(&volume.metadata)));
    }
    if storage(requests) > storage(spec.capacity.as_ref()) {
        return Some("requested PV is too small".to_owned());
    }
    if class_of_volume(volume) != class_of_claim(claim) {
        return Some("storageClassName does not match".to_owned());
    }
    let attributes = |name: &Option<String>| name.clone().unwrap_or_default();
    if attributes(&spec.volume_attributes_class_name) != attributes(&wants.volume_attributes_class_name) {
        return Some("volumeAttributesClassName does not match".to_owned());
    }
    if mode(spec.volume_mode.as_ref()) != mode(wants.volume_mode.as_ref()) {
        return Some("incompatible volumeMode".to_owned());
    }
    let has_modes = wants.access_modes.iter().flatten().all(|wanted| modes.contains(wanted));
    (!has_modes).then(|| "incompatible accessMode".to_owned())
}

/// Whether volume and claim disagree about file system and block device.
pub(super) fn modes_differ(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_ref());
    mode(of_volume) != mode(claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_ref()))
}

/// The volume for a claim that names none; `only_reserved` leaves out those that are nobody's yet.
pub(super) fn find_volume(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    only_reserved: bool,
) -> Option<Arc<PersistentVolume>> {
    let wants = claim.spec.as_ref()?;
    let satisfies = |volume: &&Arc<PersistentVolume>| {
        volume.metadata.deletion_timestamp.is_none()
            && volume.spec.as_ref().is_some_and(|spec| satisfies(volume, spec, claim, wants))
    };
    // What is reserved for the claim already is its, in whatever state: a second one would be one too many.
    if let Some(volume) = volumes.iter().filter(|volume| is_reserved_for(volume, claim)).find(satisfies) {
        return Some(volume.clone());
    }
    if only_reserved {
        return None;
    }
    let is_open = |volume: &&Arc<PersistentVolume>| {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        matches!(phase, "" | "Pending" | "Available")
    };
    let free = volumes.iter().filter(|volume| !is_reserved(volume)).filter(is_open).filter(satisfies);
    let order = |volume: &&Arc<PersistentVolume>| {
        let capacity = storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()));
        (capacity, name_of(&volume.metadata).to_owned())
    };
    free.min_by_key(order).cloned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ObjectReference, VolumeResourceRequirements};

    pub(crate) fn amount(text: &str) -> BTreeMap<String, ApiQuantity> {
        BTreeMap::from([("storage".to_owned(), ApiQuantity(text.to_owned()))])
    }

    pub(crate) fn volume(name: &str, size: &str, class: &str) -> PersistentVolume {
        let mut volume = PersistentVolume::default();
        volume.metadata.name = Some(name.to_owned());
        volume.spec = Some(PersistentVolumeSpec {
            capacity: Some(amount(size)),
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: Some(class.to_owned()),
            ..PersistentVolumeSpec::default()
        });
        volume
    }

    pub(crate) fn claim(size: &str, class: &str, mode: &str) -> PersistentVolumeClaim {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.name = Some("data".to_owned());
        claim.metadata.namespace = Some("default".to_owned());
        claim.metadata.uid = Some("1".to_owned());
        claim.spec = Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![mode.to_owned()]),
            storage_class_name: Some(class.to_owned()),
            resources: Some(VolumeResourceRequirements { requests: Some(amount(size)), ..Default::default() }),
            ..PersistentVolumeClaimSpec::default()
        });
        claim
    }

    pub(crate) fn reserve(mut volume: PersistentVolume, name: &str, uid: Option<&str>) -> PersistentVolume {
        volume.spec.get_or_insert_default().claim_ref = Some(ObjectReference {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: uid.map(str::to_owned),
            ..ObjectReference::default()
        });
        volume
    }

    #[test]
    fn a_claim_gets_the_smallest_volume_that_will_do() {
        let volumes = [
            volume("large", "10Gi", "fast"),
            volume("small", "2Gi", "fast"),
            volume("tiny", "1Mi", "fast"),
            volume("slow", "2Gi", "slow"),
            reserve(volume("taken", "1Gi", "fast"), "other", None),
        ];
        let volumes: Vec<Arc<PersistentVolume>> = volumes.into_iter().map(Arc::new).collect();
        let check = |claim: PersistentVolumeClaim, expected: Option<&str>| {
            let found = find_volume(&claim, &volumes, false);
            assert_eq!(found.as_ref().map(|volume| name_of(&volume.metadata)), expected);
        };
        check(claim("1Gi", "fast", "ReadWriteOnce"), Some("small"));
        check(claim("5Gi", "fast", "ReadWriteOnce"), Some("large"));
        check(claim("50Gi", "fast", "ReadWriteOnce"), None);
        check(claim("1Gi", "fast", "ReadWriteMany"), None);
        check(claim("1Gi", "", "ReadWriteOnce"), None);
        check(claim("1Gi", "slow", "ReadWriteOnce"), Some("slow"));
        let mut others: Vec<Arc<PersistentVolume>> = volumes.clone();
        others.push(Arc::new(reserve(volume("mine", "50Gi", "fast"), "data", None)));
        let found = find_volume(&claim("1Gi", "fast", "ReadWriteOnce"), &others, false);
        assert_eq!(found.map(|volume| name_of(&volume.metadata).to_owned()).as_deref(), Some("mine"));
        // Also where it is bound already and the claim does not show it yet.
        Arc::make_mut(&mut others[5]).status.get_or_insert_default().phase = Some("Bound".to_owned());
        let found = find_volume(&claim("1Gi", "fast", "ReadWriteOnce"), &others, false);
        assert_eq!(found.map(|volume| name_of(&volume.metadata).to_owned()).as_deref(), Some("mine"));
    }

    #[test]
    fn a_named_volume_must_do() {
        let check = |volume: &PersistentVolume, claim: &PersistentVolumeClaim, expected: Option<&str>| {
            assert_eq!(mismatch(volume, claim).as_deref(), expected);
        };
        let mut offered = volume("v", "1Gi", "fast");
        check(&offered, &claim("1Gi", "fast", "ReadWriteOnce"), None);
        check(&offered, &claim("2Gi", "fast", "ReadWriteOnce"), Some("requested PV is too small"));
        check(&offered, &claim("1Gi", "slow", "ReadWriteOnce"), Some("storageClassName does not match"));
        check(&offered, &claim("1Gi", "fast", "ReadWriteOncePod"), Some("incompatible accessMode"));
        offered.spec.get_or_insert_default().volume_mode = Some("Block".to_owned());
        check(&offered, &claim("1Gi", "fast", "ReadWriteOnce"), Some("incompatible volumeMode"));
        assert!(modes_differ(&offered, &claim("1Gi", "fast", "ReadWriteOnce")));
        offered.spec.get_or_insert_default().volume_attributes_class_name = Some("gold".to_owned());
        let text = "volumeAttributesClassName does not match";
        check(&offered, &claim("1Gi", "fast", "ReadWriteOnce"), Some(text));
    }
}
