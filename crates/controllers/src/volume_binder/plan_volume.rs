//! What to do about a volume: its phase, and what becomes of it after its claim is gone.
//!
//! Pure.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::PROVISIONED_BY;
use super::match_volume::modes_differ;
use super::plan_claim::{Notice, is_bound_by_controller};
use crate::pods::name_of;

/// What to do about a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum VolumePlan {
    Available,
    Bound,
    /// Its claim is gone, or got another one; it keeps its data.
    Released,
    /// Its claim is gone, and nobody here can do what its policy says.
    Fail(Notice),
    /// Reserved for a claim that got another one.
    Unreserve,
    /// Its claim is about to be bound: nothing yet.
    Leave(Option<Notice>),
}

/// What to do about a volume, given the claim that it is reserved for.
pub(super) fn plan_volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumePlan {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let uid = reference.and_then(|reference| reference.uid.as_ref()).filter(|uid| !uid.is_empty());
    // Nobody's, or reserved by hand for a claim that is still to come.
    let Some(uid) = uid else { return VolumePlan::Available };
    let Some(claim) = claim.filter(|claim| claim.metadata.uid.as_ref() == Some(uid)) else { return reclaim(volume) };
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    match named {
        Some(named) if named == name_of(&volume.metadata) => VolumePlan::Bound,
        // It was made for the claim, which took another one: it goes, as its policy says.
        Some(_) if was_provisioned(volume) && policy(volume) == "Delete" => reclaim(volume),
        Some(_) => VolumePlan::Unreserve,
        None if modes_differ(volume, claim) => {
            let text = format!(
                "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"{}\" due to incompatible volumeMode.",
                name_of(&claim.metadata)
            );
            VolumePlan::Leave(Some(Notice::warning("VolumeMismatch", text)))
        }
        None => VolumePlan::Leave(None),
    }
}

/// What the reservation of a volume becomes whose claim got another one: a reservation by hand stays one.
pub(super) fn unreserve(volume: &mut PersistentVolume) {
    let by_controller = is_bound_by_controller(&volume.metadata);
    let spec = volume.spec.get_or_insert_default();
    if by_controller {
        spec.claim_ref = None;
        volume.metadata.annotations.get_or_insert_default().remove(super::BOUND_BY_CONTROLLER);
    } else if let Some(reference) = &mut spec.claim_ref {
        reference.uid = None;
        reference.resource_version = None;
    }
}

fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

fn provisioner(volume: &PersistentVolume) -> Option<&str> {
    volume.metadata.annotations.as_ref()?.get(PROVISIONED_BY).map(String::as_str)
}

fn was_provisioned(volume: &PersistentVolume) -> bool {
    provisioner(volume).is_some()
}

/// What becomes of a volume without a claim. Whoever made it deletes it.
// DIVERGES: there are no built-in plugins that delete or recycle volumes; upstream has them for hostPath below /tmp and NFS.
fn reclaim(volume: &PersistentVolume) -> VolumePlan {
    let is_released = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Released");
    let is_external = provisioner(volume).is_some_and(|name| !name.starts_with("kubernetes.io/"));
    match policy(volume) {
        // Seen as released first: that is what others wait for.
        _ if !is_released && !is_failed(volume) => VolumePlan::Released,
        "Recycle" => {
            VolumePlan::Fail(Notice::warning("VolumeFailedRecycle", "No recycler plugin found for the volume!"))
        }
        "Delete" if !is_external => {
            let name = name_of(&volume.metadata);
            let text = format!(
                "error getting deleter volume plugin for volume \"{name}\": no deletable volume plugin matched"
            );
            VolumePlan::Fail(Notice::warning("VolumeFailedDelete", text))
        }
        // Failed volumes of one that deletes are left to it as well.
        _ if is_failed(volume) => VolumePlan::Leave(None),
        _ => VolumePlan::Released,
    }
}

fn is_failed(volume: &PersistentVolume) -> bool {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Failed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume_binder::BOUND_BY_CONTROLLER;
    use crate::volume_binder::match_volume::tests::{claim, reserve, volume};
    use k8s_openapi::api::core::v1::PersistentVolumeStatus;

    fn of_claim() -> PersistentVolume {
        reserve(volume("v", "1Gi", ""), "data", Some("1"))
    }

    fn annotate(mut volume: PersistentVolume, key: &str, value: &str) -> PersistentVolume {
        volume.metadata.annotations = Some([(key.to_owned(), value.to_owned())].into());
        volume
    }

    fn with(mut volume: PersistentVolume, policy: &str, phase: &str) -> PersistentVolume {
        volume.spec.get_or_insert_default().persistent_volume_reclaim_policy = Some(policy.to_owned());
        volume.status =
            Some(PersistentVolumeStatus { phase: Some(phase.to_owned()), ..PersistentVolumeStatus::default() });
        volume
    }

    #[test]
    fn a_volume_outlives_its_claim() {
        let mut mine = claim("1Gi", "", "ReadWriteOnce");
        assert_eq!(plan_volume(&of_claim(), Some(&mine)), VolumePlan::Leave(None));
        mine.spec.get_or_insert_default().volume_name = Some("v".to_owned());
        assert_eq!(plan_volume(&of_claim(), Some(&mine)), VolumePlan::Bound);
        assert_eq!(plan_volume(&of_claim(), None), VolumePlan::Released);
        let mut later = mine.clone();
        later.metadata.uid = Some("2".to_owned());
        assert_eq!(plan_volume(&of_claim(), Some(&later)), VolumePlan::Released);
        let by_name = reserve(volume("v", "1Gi", ""), "data", None);
        assert_eq!(plan_volume(&by_name, None), VolumePlan::Available);
        assert_eq!(plan_volume(&volume("v", "1Gi", ""), None), VolumePlan::Available);
    }

    #[test]
    fn a_claim_that_took_another_volume_frees_this_one() {
        let mut elsewhere = claim("1Gi", "", "ReadWriteOnce");
        elsewhere.spec.get_or_insert_default().volume_name = Some("w".to_owned());
        let mut chosen = annotate(of_claim(), BOUND_BY_CONTROLLER, "yes");
        assert_eq!(plan_volume(&chosen, Some(&elsewhere)), VolumePlan::Unreserve);
        unreserve(&mut chosen);
        assert_eq!(chosen.spec.as_ref().unwrap().claim_ref, None);
        let mut by_hand = of_claim();
        assert_eq!(plan_volume(&by_hand, Some(&elsewhere)), VolumePlan::Unreserve);
        unreserve(&mut by_hand);
        let reference = by_hand.spec.unwrap().claim_ref.unwrap();
        assert_eq!((reference.name.as_deref(), reference.uid), (Some("data"), None));
        let made = with(annotate(of_claim(), PROVISIONED_BY, "example.com/p"), "Delete", "Bound");
        assert_eq!(plan_volume(&made, Some(&elsewhere)), VolumePlan::Released);
    }

    #[test]
    fn policies_are_left_to_who_made_the_volume() {
        let check = |volume: PersistentVolume, expected: &str| {
            let plan = match plan_volume(&volume, None) {
                VolumePlan::Fail(notice) => notice.text,
                other => format!("{other:?}"),
            };
            assert_eq!(plan, expected);
        };
        let made =
            |policy: &str, phase: &str| with(annotate(of_claim(), PROVISIONED_BY, "example.com/p"), policy, phase);
        check(made("Delete", "Bound"), "Released");
        check(made("Delete", "Released"), "Released");
        check(made("Delete", "Failed"), "Leave(None)");
        check(with(of_claim(), "Retain", "Released"), "Released");
        let no_deleter = "error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched";
        check(with(of_claim(), "Delete", "Bound"), "Released");
        check(with(of_claim(), "Delete", "Released"), no_deleter);
        check(with(of_claim(), "Delete", "Failed"), no_deleter);
        check(with(of_claim(), "Recycle", "Released"), "No recycler plugin found for the volume!");
    }
}
