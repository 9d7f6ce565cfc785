//! What becomes of one object, decided from a fresh read of it and of its owners.
//!
//! Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;

use super::graph::{FOREGROUND, ORPHAN};

/// What a fresh read of an owner says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnerState {
    /// It is there.
    Solid,
    /// It is not there, or is another object by now.
    Absent,
    /// It waits for its dependents before it goes.
    WaitsForDependents,
    /// The reference can't be followed and must not be acted on.
    Unknown,
}

/// What becomes of an object.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Keep,
    /// Its references to owners are replaced by these.
    Disown(Vec<OwnerReference>),
    /// It is deleted; where it must no longer block its owners, its references are replaced first.
    Delete {
        policy: PropagationPolicy,
        unblocked: Option<Vec<OwnerReference>>,
    },
}

/// Decides about an object whose owners are in the given states, in the order of its references.
pub(crate) fn plan(meta: &ObjectMeta, owners: &[OwnerState], has_waiting_dependents: bool) -> Verdict {
    let references = meta.owner_references.as_deref().unwrap_or_default();
    if references.is_empty() || owners.contains(&OwnerState::Unknown) {
        return Verdict::Keep;
    }
    if owners.contains(&OwnerState::Solid) {
        let solid = references.iter().zip(owners).filter(|(_, state)| **state == OwnerState::Solid);
        let solid: Vec<OwnerReference> = solid.map(|(reference, _)| reference.clone()).collect();
        return if solid.len() == references.len() { Verdict::Keep } else { Verdict::Disown(solid) };
    }
    let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|present| present == finalizer);
    if owners.contains(&OwnerState::WaitsForDependents) && has_waiting_dependents {
        // Two that wait for one another would wait for ever.
        let unblock =
            |reference: &OwnerReference| OwnerReference { block_owner_deletion: Some(false), ..reference.clone() };
        let unblocked = references.iter().map(unblock).collect();
        return Verdict::Delete { policy: PropagationPolicy::Foreground, unblocked: Some(unblocked) };
    }
    let policy = if owners.contains(&OwnerState::WaitsForDependents) || has(FOREGROUND) {
        PropagationPolicy::Foreground
    } else if has(ORPHAN) {
        PropagationPolicy::Orphan
    } else {
        PropagationPolicy::Background
    };
    Verdict::Delete { policy, unblocked: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_stays_while_an_owner_stands() {
        use OwnerState::{Absent, Solid, Unknown, WaitsForDependents};
        let check = |states: &[OwnerState], finalizer: Option<&str>, cycle: bool, expected: &str| {
            let reference = |index: usize| OwnerReference {
                uid: index.to_string(),
                block_owner_deletion: Some(true),
                ..OwnerReference::default()
            };
            let meta = ObjectMeta {
                owner_references: Some((0..states.len()).map(reference).collect()),
                finalizers: finalizer.map(|finalizer| vec![finalizer.to_owned()]),
                ..ObjectMeta::default()
            };
            let actual = match plan(&meta, states, cycle) {
                Verdict::Keep => "keep".to_owned(),
                Verdict::Disown(left) => {
                    format!("owned by {}", left.iter().map(|owner| owner.uid.as_str()).collect::<Vec<_>>().join(","))
                }
                Verdict::Delete { policy, unblocked } => format!("{policy:?} {}", unblocked.is_some()),
            };
            assert_eq!(actual, expected, "{states:?}");
        };
        check(&[], None, false, "keep");
        check(&[Solid], None, false, "keep");
        check(&[Solid, Absent], None, false, "owned by 0");
        check(&[WaitsForDependents, Solid], None, false, "owned by 1");
        check(&[Absent], None, false, "Background false");
        check(&[Absent, Unknown], None, false, "keep");
        check(&[Absent], Some(ORPHAN), false, "Orphan false");
        check(&[Absent], Some(FOREGROUND), false, "Foreground false");
        check(&[WaitsForDependents], None, false, "Foreground false");
        check(&[WaitsForDependents], None, true, "Foreground true");
    }
}
