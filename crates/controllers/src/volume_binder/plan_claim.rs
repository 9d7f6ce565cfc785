//! What to do about a claim.
//!
//! Pure. Invariant: a claim that was bound is never given another volume.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kedge_client::EventType;

use super::match_volume::{class_of_claim, find_volume, is_reserved_for, mismatch};
use super::{BOUND_BY_CONTROLLER, is_bound};
use crate::pods::{is_terminal, name_of, node_name};

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const IS_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// An event: its type, reason and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) event_type: EventType,
    pub(super) reason: &'static str,
    pub(super) text: String,
}

impl Notice {
    pub(super) fn normal(reason: &'static str, text: impl Into<String>) -> Self {
        Self { event_type: EventType::Normal, reason, text: text.into() }
    }

    pub(super) fn warning(reason: &'static str, text: impl Into<String>) -> Self {
        Self { event_type: EventType::Warning, reason, text: text.into() }
    }
}

/// What to do about a claim.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ClaimPlan {
    /// Bind it to this volume, or finish that.
    Bind(Arc<PersistentVolume>),
    /// Give it the default class, which came after it.
    Assign(String),
    /// Ask this provisioner for a volume.
    Provision(String),
    /// Nothing will do yet.
    Wait(Option<Notice>),
    /// Its volume is gone.
    Lose(Notice),
}

/// What the plan of a claim depends on.
pub(super) struct Known<'a> {
    pub(super) volumes: &'a [Arc<PersistentVolume>],
    pub(super) classes: &'a [Arc<StorageClass>],
    /// The pods of the claim's namespace.
    pub(super) pods: &'a [Arc<Pod>],
}

/// What to do about a claim.
pub(super) fn plan_claim(claim: &PersistentVolumeClaim, known: &Known<'_>) -> ClaimPlan {
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    match (is_bound(claim), named) {
        (true, named) => plan_bound(claim, named, known),
        (false, Some(named)) => plan_named(claim, named, known),
        (false, None) => plan_open(claim, known),
    }
}

fn volume_named(known: &Known<'_>, name: &str) -> Option<Arc<PersistentVolume>> {
    known.volumes.iter().find(|volume| name_of(&volume.metadata) == name).cloned()
}

fn plan_bound(claim: &PersistentVolumeClaim, named: Option<&str>, known: &Known<'_>) -> ClaimPlan {
    let lost = |text: &str| ClaimPlan::Lose(Notice::warning("ClaimLost", text));
    let Some(named) = named else {
        return lost("Bound claim has lost reference to PersistentVolume. Data on the volume is lost!");
    };
    let Some(volume) = volume_named(known, named) else {
        return lost("Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    match reference {
        Some(reference) if reference.uid != claim.metadata.uid => {
            let text = "Two claims are bound to the same volume, this one is bound incorrectly";
            ClaimPlan::Lose(Notice::warning("ClaimMisbound", text))
        }
        _ => ClaimPlan::Bind(volume),
    }
}

fn plan_named(claim: &PersistentVolumeClaim, named: &str, known: &Known<'_>) -> ClaimPlan {
    let Some(volume) = volume_named(known, named) else { return ClaimPlan::Wait(None) };
    let is_free = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
    if is_free {
        return match mismatch(&volume, claim) {
            None => ClaimPlan::Bind(volume),
            Some(why) => {
                let text = format!("Cannot bind to requested volume \"{named}\": {why}");
                ClaimPlan::Wait(Some(Notice::warning("VolumeMismatch", text)))
            }
        };
    }
    if is_reserved_for(&volume, claim) {
        return ClaimPlan::Bind(volume);
    }
    let text = format!("volume \"{named}\" already bound to a different claim.");
    ClaimPlan::Wait(Some(Notice::warning("FailedBinding", text)))
}

fn plan_open(claim: &PersistentVolumeClaim, known: &Known<'_>) -> ClaimPlan {
    let class_name = class_of_claim(claim);
    if !names_class(claim)
        && let Some(class) = default_class(known.classes)
    {
        return ClaimPlan::Assign(class);
    }
    let class = known.classes.iter().find(|class| name_of(&class.metadata) == class_name);
    let binds_late = class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let is_placed = annotation(claim, SELECTED_NODE).is_some();
    let must_wait = binds_late && !is_placed;
    if let Some(volume) = find_volume(claim, known.volumes, must_wait) {
        return ClaimPlan::Bind(volume);
    }
    if must_wait {
        return ClaimPlan::Wait(Some(first_consumer(claim, known.pods)));
    }
    if class_name.is_empty() {
        let text = "no persistent volumes available for this claim and no storage class is set";
        return ClaimPlan::Wait(Some(Notice::normal("FailedBinding", text)));
    }
    match class {
        None => {
            let text = format!("storageclass.storage.k8s.io \"{class_name}\" not found");
            ClaimPlan::Wait(Some(Notice::warning("ProvisioningFailed", text)))
        }
        // There are no built-in provisioners.
        Some(class) if class.provisioner.starts_with("kubernetes.io/") => {
            let text = format!("no volume plugin matched name: {}", class.provisioner);
            ClaimPlan::Wait(Some(Notice::warning("ProvisioningFailed", text)))
        }
        Some(class) => ClaimPlan::Provision(class.provisioner.clone()),
    }
}

fn annotation<'a>(claim: &'a PersistentVolumeClaim, key: &str) -> Option<&'a str> {
    claim.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether a claim says anything about its class, be it that it wants none.
fn names_class(claim: &PersistentVolumeClaim) -> bool {
    let named = claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_some());
    named || annotation(claim, CLASS_ANNOTATION).is_some()
}

/// The youngest default class; the first by name among equals.
fn default_class(classes: &[Arc<StorageClass>]) -> Option<String> {
    let is_default = |class: &&Arc<StorageClass>| {
        let annotations = class.metadata.annotations.as_ref();
        let says = |key: &&str| annotations.is_some_and(|all| all.get(*key).is_some_and(|value| value == "true"));
        IS_DEFAULT.iter().any(says)
    };
    let age = |class: &&Arc<StorageClass>| {
        let made = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (std::cmp::Reverse(made), name_of(&class.metadata).to_owned())
    };
    classes.iter().filter(is_default).min_by_key(age).map(|class| name_of(&class.metadata).to_owned())
}

/// What a claim waits for whose volume depends on the node of its first pod.
fn first_consumer(claim: &PersistentVolumeClaim, pods: &[Arc<Pod>]) -> Notice {
    let own = name_of(&claim.metadata);
    let waits = |pod: &&Arc<Pod>| {
        node_name(pod).is_none()
            && !is_terminal(pod)
            && crate::volume_protection::claims_of(pod).iter().any(|name| name == own)
    };
    let mut names: Vec<&str> = pods.iter().filter(waits).map(|pod| name_of(&pod.metadata)).collect();
    names.sort_unstable();
    match names.as_slice() {
        [] => Notice::normal("WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
        [name] => Notice::normal("WaitForPodScheduled", format!("waiting for pod {name} to be scheduled")),
        names => Notice::normal("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", names.join(","))),
    }
}

/// Whether a claim that names its volume was bound by the binder and not by hand.
pub(super) fn is_bound_by_controller(metadata: &kube::api::ObjectMeta) -> bool {
    metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(BOUND_BY_CONTROLLER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::{on_node, pod};
    use crate::volume_binder::BIND_COMPLETED;
    use crate::volume_binder::match_volume::tests::{claim, reserve, volume};
    use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Volume};

    fn class(name: &str, provisioner: &str, mode: &str) -> Arc<StorageClass> {
        let mut class = StorageClass { provisioner: provisioner.to_owned(), ..StorageClass::default() };
        class.metadata.name = Some(name.to_owned());
        class.volume_binding_mode = Some(mode.to_owned());
        Arc::new(class)
    }

    fn user(name: &str) -> Arc<Pod> {
        let mut pod = on_node(pod(name), None);
        let source = PersistentVolumeClaimVolumeSource { claim_name: "data".to_owned(), read_only: None };
        pod.spec.get_or_insert_default().volumes =
            Some(vec![Volume { name: "v".to_owned(), persistent_volume_claim: Some(source), ..Volume::default() }]);
        Arc::new(pod)
    }

    fn text(plan: &ClaimPlan) -> String {
        match plan {
            ClaimPlan::Bind(volume) => format!("bind {}", name_of(&volume.metadata)),
            ClaimPlan::Assign(class) => format!("assign {class}"),
            ClaimPlan::Provision(provisioner) => format!("provision {provisioner}"),
            ClaimPlan::Wait(None) => "wait".to_owned(),
            ClaimPlan::Wait(Some(notice)) => format!("{}: {}", notice.reason, notice.text),
            ClaimPlan::Lose(notice) => format!("lost {}", notice.reason),
        }
    }

    #[test]
    fn open_claims_wait_or_ask_a_provisioner() {
        let classes = [
            class("late", "example.com/p", "WaitForFirstConsumer"),
            class("now", "example.com/p", "Immediate"),
            class("none", "kubernetes.io/no-provisioner", "Immediate"),
        ];
        let volumes = [Arc::new(volume("v", "1Gi", "late")), Arc::new(volume("w", "1Gi", "none"))];
        let check = |claim: PersistentVolumeClaim, pods: &[Arc<Pod>], expected: &str| {
            let plan = plan_claim(&claim, &Known { volumes: &volumes, classes: &classes, pods });
            assert_eq!(text(&plan), expected);
        };
        let of = |class: &str| claim("1Gi", class, "ReadWriteOnce");
        let first = "WaitForFirstConsumer: waiting for first consumer to be created before binding";
        check(of("late"), &[], first);
        check(of("late"), &[user("a")], "WaitForPodScheduled: waiting for pod a to be scheduled");
        check(of("late"), &[user("b"), user("a")], "WaitForPodScheduled: waiting for pods a,b to be scheduled");
        let mut placed = of("late");
        placed.metadata.annotations = Some([(SELECTED_NODE.to_owned(), "n1".to_owned())].into());
        check(placed.clone(), &[], "bind v");
        placed.spec.get_or_insert_default().access_modes = Some(vec!["ReadWriteMany".to_owned()]);
        check(placed, &[], "provision example.com/p");
        check(of("now"), &[], "provision example.com/p");
        check(of("none"), &[], "bind w");
        let none = "ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner";
        check(claim("2Gi", "none", "ReadWriteOnce"), &[], none);
        check(of("gone"), &[], "ProvisioningFailed: storageclass.storage.k8s.io \"gone\" not found");
        let none = "FailedBinding: no persistent volumes available for this claim and no storage class is set";
        check(of(""), &[], none);
    }

    #[test]
    fn a_default_class_that_comes_late_is_taken() {
        let mut default = StorageClass::clone(&class("std", "example.com/p", "Immediate"));
        default.metadata.annotations = Some([(IS_DEFAULT[0].to_owned(), "true".to_owned())].into());
        let classes = [class("other", "example.com/p", "Immediate"), Arc::new(default)];
        let known = Known { volumes: &[], classes: &classes, pods: &[] };
        let mut open = claim("1Gi", "", "ReadWriteOnce");
        assert!(matches!(plan_claim(&open, &known), ClaimPlan::Wait(_)), "an empty name asks for no class");
        open.spec.get_or_insert_default().storage_class_name = None;
        assert_eq!(text(&plan_claim(&open, &known)), "assign std");
    }

    #[test]
    fn named_volumes_are_bound_if_they_will_do() {
        let volumes = [
            Arc::new(volume("free", "1Gi", "")),
            Arc::new(volume("small", "1Mi", "")),
            Arc::new(reserve(volume("mine", "1Mi", ""), "data", None)),
            Arc::new(reserve(volume("taken", "1Gi", ""), "other", Some("9"))),
        ];
        let check = |name: &str, bound: bool, expected: &str| {
            let mut claim = claim("1Gi", "", "ReadWriteOnce");
            claim.spec.get_or_insert_default().volume_name = Some(name.to_owned());
            claim.metadata.annotations = bound.then(|| [(BIND_COMPLETED.to_owned(), "yes".to_owned())].into());
            let plan = plan_claim(&claim, &Known { volumes: &volumes, classes: &[], pods: &[] });
            assert_eq!(text(&plan), expected);
        };
        check("free", false, "bind free");
        let small = "VolumeMismatch: Cannot bind to requested volume \"small\": requested PV is too small";
        check("small", false, small);
        check("mine", false, "bind mine");
        check("taken", false, "FailedBinding: volume \"taken\" already bound to a different claim.");
        check("gone", false, "wait");
        check("gone", true, "lost ClaimLost");
        check("", true, "lost ClaimLost");
        check("taken", true, "lost ClaimMisbound");
        check("free", true, "bind free");
    }
}
