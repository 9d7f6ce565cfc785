//! VolumeBinding: claims must exist and be bound, or be bindable on the node: to a volume that is there and reachable
//! from it, or to one that can be made there.
//!
//! Pure. What was found for the chosen node is carried out by `bind_volumes.rs` before the pod is bound.

mod find;
mod make;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kedge_meta::ObjectKey;

use crate::event::{Action, Event, EventKind, other_labels, other_taints};
use crate::framework::{Cycle, Evaluation, Plugin, Surroundings, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::selectors::node_selector_matches;
use find::find_static;
use make::{Making, can_make};

/// The annotation by which a provisioner learns on which node a claim will be used.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

pub(crate) struct VolumeBinding;

/// What must be done for a pod's claims before it can run on a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodVolumes {
    /// Claims and the volumes they get.
    pub(crate) bindings: Vec<(Arc<PersistentVolumeClaim>, Arc<PersistentVolume>)>,
    /// Claims for which volumes are made.
    pub(crate) provisions: Vec<Arc<PersistentVolumeClaim>>,
}

impl PodVolumes {
    pub(crate) fn is_empty(&self) -> bool {
        self.bindings.is_empty() && self.provisions.is_empty()
    }
}

/// A pod's claims by how far they are.
struct Claims<'a> {
    surroundings: &'a Surroundings,
    refusal: Option<String>,
    /// The volumes of bound claims; `None` for one that is gone.
    bound: Vec<Option<Arc<PersistentVolume>>>,
    /// Claims that wait for their pod to be placed.
    waiting: Vec<Arc<PersistentVolumeClaim>>,
}

/// Whether a claim is bound and its volume says so as well.
pub(crate) fn is_fully_bound(claim: &PersistentVolumeClaim) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    volume_name(claim).is_some() && annotations.is_some_and(|all| all.contains_key(BIND_COMPLETED))
}

fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

fn class_of<'a>(claim: &PersistentVolumeClaim, surroundings: &'a Surroundings) -> Option<&'a StorageClass> {
    let name = claim.spec.as_ref()?.storage_class_name.as_ref()?;
    let mut classes = surroundings.storage_classes.iter();
    classes.find(|class| class.metadata.name.as_ref() == Some(name)).map(|class| &**class)
}

fn binds_late(claim: &PersistentVolumeClaim, surroundings: &Surroundings) -> bool {
    let class = class_of(claim, surroundings);
    class.and_then(|class| class.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer")
}

/// The names of a pod's claims, with whether they are of its ephemeral volumes.
pub(crate) fn claim_names(pod: &PodInfo) -> &[(String, bool)] {
    &pod.claims
}

/// Whether a claim is one of a pod's.
pub(crate) fn is_own_claim(pod: &PodInfo, claim: &ObjectKey) -> bool {
    claim.namespace == pod.namespace() && claim_names(pod).iter().any(|(name, _)| *name == claim.name)
}

/// What must be done for a pod's claims on a node that passed the filter.
pub(crate) fn volumes_for(pod: &PodInfo, node: &NodeInfo, surroundings: &Surroundings) -> PodVolumes {
    look_up(pod, surroundings).find(node).unwrap_or_default()
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let has_claims = !claim_names(cycle.pod).is_empty();
        has_claims.then(|| Box::new(look_up(cycle.pod, cycle.surroundings)) as Box<dyn Evaluation + 'a>)
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::Object(change) if change.action == Action::Delete => false,
            Event::Object(change) => match change.kind {
                EventKind::Claim => is_own_claim(pod, &change.key),
                EventKind::Attachment | EventKind::Devices => false,
                _ => true,
            },
            event => event.changed_node(|old, new| other_labels(old, new) || other_taints(old, new)).is_some(),
        }
    }
}

fn look_up<'a>(pod: &PodInfo, surroundings: &'a Surroundings) -> Claims<'a> {
    let mut claims = Claims { surroundings, refusal: None, bound: Vec::new(), waiting: Vec::new() };
    for (name, is_ephemeral) in claim_names(pod) {
        if let Err(refusal) = claims.sort_in(pod, name, *is_ephemeral) {
            claims.refusal = Some(refusal);
            break;
        }
    }
    claims
}

impl Claims<'_> {
    fn sort_in(&mut self, pod: &PodInfo, name: &str, is_ephemeral: bool) -> Result<(), String> {
        let mut known = self.surroundings.claims.iter();
        let claim = known.find(|claim| {
            claim.metadata.namespace.as_deref() == Some(pod.namespace()) && claim.metadata.name.as_deref() == Some(name)
        });
        let Some(claim) = claim else {
            return Err(match is_ephemeral {
                true => {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
                }
                false => format!("persistentvolumeclaim \"{name}\" not found"),
            });
        };
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Lost") {
            let volume = volume_name(claim).unwrap_or_default();
            return Err(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
            ));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        let is_owner = |uid: &str| pod.pod().metadata.uid.as_deref() == Some(uid);
        if is_ephemeral && !claim.metadata.owner_references.iter().flatten().any(|owner| is_owner(&owner.uid)) {
            return Err(format!(
                "PVC {}/{name} was not created for pod {} (pod is not owner)",
                pod.namespace(),
                pod.key
            ));
        }
        if is_fully_bound(claim) {
            let wanted = volume_name(claim);
            let mut volumes = self.surroundings.volumes.iter();
            self.bound.push(volumes.find(|volume| volume.metadata.name.as_deref() == wanted).cloned());
        } else if volume_name(claim).is_none() && binds_late(claim, self.surroundings) {
            self.waiting.push(claim.clone());
        } else {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        Ok(())
    }

    /// What must be done for the claims on a node; upstream's words where it can't be.
    fn find(&self, node: &NodeInfo) -> Result<PodVolumes, &'static str> {
        for volume in &self.bound {
            let volume = volume.as_ref().ok_or(GONE)?;
            if !is_reachable(volume, node) {
                return Err("node(s) didn't match PersistentVolume's node affinity");
            }
        }
        let mut volumes = PodVolumes::default();
        let mut open = Vec::new();
        for claim in &self.waiting {
            match claim.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED_NODE)) {
                Some(selected) if *selected != node.name => return Err(NOTHING_TO_BIND),
                Some(_) => volumes.provisions.push(claim.clone()),
                None => open.push(claim.clone()),
            }
        }
        let (bindings, unbound) = find_static(&open, &self.surroundings.volumes, node);
        volumes.bindings = bindings;
        volumes.provisions.extend(unbound);
        for claim in &volumes.provisions {
            match can_make(claim, class_of(claim, self.surroundings), node, self.surroundings) {
                Making::Can => {}
                Making::Cannot => return Err(NOTHING_TO_BIND),
                Making::TooFull => return Err("node(s) did not have enough free storage"),
            }
        }
        Ok(volumes)
    }
}

const GONE: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const NOTHING_TO_BIND: &str = "node(s) didn't find available persistent volumes to bind";

/// Whether a volume's node affinity lets the node have it.
fn is_reachable(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|selector| node_selector_matches(selector, node))
}

impl Evaluation for Claims<'_> {
    fn refusal(&self) -> Option<String> {
        self.refusal.clone()
    }

    fn filter(&self, node: &NodeInfo) -> Verdict {
        match self.find(node) {
            Ok(_) => Verdict::Fits,
            Err(why) => Verdict::unresolvable(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{filter_in, node, pod};
    use serde_json::{Value, json};

    fn parse<K: k8s_openapi::serde::de::DeserializeOwned>(value: Value) -> Arc<K> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn claim(name: &str, class: &str, extra: Value) -> Arc<PersistentVolumeClaim> {
        let mut value = json!({
            "metadata": {"name": name, "namespace": "d", "uid": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
                     "resources": {"requests": {"storage": "1Gi"}}},
        });
        for (field, extra) in extra.as_object().unwrap() {
            value[field].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        }
        parse(value)
    }

    fn bound(name: &str, volume: &str) -> Arc<PersistentVolumeClaim> {
        let annotations = json!({"annotations": {BIND_COMPLETED: "yes"}});
        claim(name, "late", json!({"metadata": annotations, "spec": {"volumeName": volume}}))
    }

    fn volume(name: &str, class: &str, zone: &str) -> Arc<PersistentVolume> {
        let by_zone = json!([{"key": "zone", "operator": "In", "values": [zone]}]);
        parse(json!({"metadata": {"name": name}, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": class,
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": by_zone}]}}}}))
    }

    fn class(name: &str, provisioner: &str, mode: &str) -> Arc<StorageClass> {
        parse(json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode}))
    }

    fn world() -> Surroundings {
        Surroundings {
            claims: vec![
                bound("bound", "v-a"),
                bound("broken", "v-gone"),
                claim("now", "now", json!({})),
                claim("late", "late", json!({})),
                claim("fixed", "fixed", json!({})),
                claim("placed", "late", json!({"metadata": {"annotations": {SELECTED_NODE: "b"}}})),
            ],
            volumes: vec![volume("v-a", "late", "a"), volume("w-b", "fixed", "b")],
            storage_classes: vec![
                class("now", "p.io/p", "Immediate"),
                class("late", "p.io/p", "WaitForFirstConsumer"),
                class("fixed", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
            ],
            ..Surroundings::default()
        }
    }

    fn nodes() -> Vec<NodeInfo> {
        let zone = |name: &str| node(json!({"metadata": {"name": name, "labels": {"zone": name}}}), Vec::new());
        vec![zone("a"), zone("b")]
    }

    fn user(claims: &[&str]) -> PodInfo {
        let volume = |name: &&str| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
        let volumes: Vec<Value> = claims.iter().map(volume).collect();
        pod(json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [], "volumes": volumes}}))
    }

    fn check(pod: &PodInfo, world: &Surroundings, expected: [&str; 2]) {
        let verdicts = filter_in(&VolumeBinding, pod, &nodes(), world);
        let texts: Vec<String> = verdicts.iter().map(|verdict| verdict.reasons().join("; ")).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn claims_decide_where_a_pod_can_run() {
        let check = |claims: &[&str], expected: [&str; 2]| check(&user(claims), &world(), expected);
        let affinity = "node(s) didn't match PersistentVolume's node affinity";
        check(&["bound"], ["", affinity]);
        check(&["broken"], [GONE, GONE]);
        check(&["late"], ["", ""]);
        check(&["fixed"], [NOTHING_TO_BIND, ""]);
        check(&["placed"], [NOTHING_TO_BIND, ""]);
        check(&["bound", "fixed"], [NOTHING_TO_BIND, affinity]);
        let unbound = "pod has unbound immediate PersistentVolumeClaims";
        check(&["now"], [unbound, unbound]);
        let gone = "persistentvolumeclaim \"none\" not found";
        check(&["none"], [gone, gone]);
    }

    #[test]
    fn the_claims_of_ephemeral_volumes_are_waited_for() {
        let ephemeral = json!([{"name": "late", "ephemeral": {}}, {"name": "tmp", "ephemeral": {}}]);
        let value = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"},
                           "spec": {"containers": [], "volumes": ephemeral}});
        let pod = pod(value);
        let mut world = world();
        let waits = "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-late\"";
        check(&pod, &world, [waits, waits]);
        world.claims.push(claim("p-late", "late", json!({})));
        let other = "PVC d/p-late was not created for pod d/p (pod is not owner)";
        check(&pod, &world, [other, other]);
    }

    #[test]
    fn what_is_found_is_what_must_be_done() {
        let volumes = volumes_for(
            &user(&["bound", "late", "fixed"]),
            &nodes()[1],
            &Surroundings { volumes: vec![volume("v-a", "late", "b"), volume("w-b", "fixed", "b")], ..world() },
        );
        let bindings: Vec<&str> =
            volumes.bindings.iter().filter_map(|(_, volume)| volume.metadata.name.as_deref()).collect();
        // The claim of the class that can make volumes gets the one that is there.
        assert_eq!(bindings, ["w-b", "v-a"].iter().rev().copied().collect::<Vec<_>>());
        assert!(volumes.provisions.is_empty());
    }

    #[test]
    fn room_is_looked_for_where_the_driver_tells() {
        let mut world = world();
        world.volumes.clear();
        world.drivers = vec![parse(json!({"metadata": {"name": "p.io/p"}, "spec": {"storageCapacity": true}}))];
        let full = "node(s) did not have enough free storage";
        check(&user(&["late"]), &world, [full, full]);
        world.capacities = vec![
            parse(json!({"metadata": {"name": "1"}, "storageClassName": "late", "capacity": "2Gi",
                         "nodeTopology": {"matchLabels": {"zone": "a"}}})),
            parse(json!({"metadata": {"name": "2"}, "storageClassName": "late", "capacity": "2Gi",
                         "maximumVolumeSize": "1Mi", "nodeTopology": {"matchLabels": {"zone": "b"}}})),
        ];
        check(&user(&["late"]), &world, ["", full]);
        let mut only_b = StorageClass::clone(&class("late", "q.io/q", "WaitForFirstConsumer"));
        only_b.allowed_topologies = serde_json::from_value(json!([
            {"matchLabelExpressions": [{"key": "zone", "values": ["b", "c"]}]}]))
        .unwrap();
        world.storage_classes = vec![Arc::new(only_b)];
        check(&user(&["late"]), &world, [NOTHING_TO_BIND, ""]);
    }
}
