//! NodeVolumeLimits: a node takes as many volumes of a CSI driver as its CSINode says.

use std::collections::{BTreeMap, BTreeSet};

use super::volume_binding::{claim_names, is_own_claim};
use crate::event::{Action, Event, EventKind};
use crate::framework::{Cycle, Evaluation, Plugin, Surroundings, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

pub(crate) struct NodeVolumeLimits;

struct Limits<'a> {
    surroundings: &'a Surroundings,
    /// What the pod brings, by driver.
    new: BTreeMap<String, BTreeSet<String>>,
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let surroundings = cycle.surroundings;
        if surroundings.volume_limits.is_empty() {
            return None;
        }
        let mut new = BTreeMap::<String, BTreeSet<String>>::new();
        for (name, _) in claim_names(cycle.pod) {
            if let Some((driver, handle)) = volume_of(cycle.pod.namespace(), name, surroundings) {
                new.entry(driver).or_default().insert(handle);
            }
        }
        (!new.is_empty()).then(|| Box::new(Limits { surroundings, new }) as Box<dyn Evaluation + 'a>)
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::AssignedPodDelete(other, _) => !claim_names(other).is_empty(),
            Event::Object(change) => match change.kind {
                EventKind::Claim => is_own_claim(pod, &change.key),
                EventKind::Attachment => change.action == Action::Delete,
                kind => kind == EventKind::CsiNode,
            },
            event => event.changed_node(|_, _| false).is_some(),
        }
    }
}

/// The driver and handle of a claim's volume; one that is still to be made counts by the claim's name.
fn volume_of(namespace: &str, name: &str, surroundings: &Surroundings) -> Option<(String, String)> {
    let claim = surroundings.claims.iter().find(|claim| {
        claim.metadata.namespace.as_deref() == Some(namespace) && claim.metadata.name.as_deref() == Some(name)
    })?;
    let spec = claim.spec.as_ref()?;
    let bound = spec.volume_name.as_ref().filter(|name| !name.is_empty());
    if let Some(bound) = bound {
        let volume = surroundings.volumes.iter().find(|volume| volume.metadata.name.as_ref() == Some(bound))?;
        let csi = volume.spec.as_ref()?.csi.as_ref()?;
        return Some((csi.driver.clone(), csi.volume_handle.clone()));
    }
    let class = spec.storage_class_name.as_ref()?;
    let class = surroundings.storage_classes.iter().find(|known| known.metadata.name.as_ref() == Some(class))?;
    Some((class.provisioner.clone(), format!("{namespace}/{name}")))
}

impl Evaluation for Limits<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let Some(limits) = self.surroundings.volume_limits.get(&node.name) else { return Verdict::Fits };
        let is_too_much = |(driver, handles): (&String, &BTreeSet<String>)| {
            let Some(limit) = limits.get(driver) else { return false };
            let added = handles.difference(&limit.handles).count();
            added > 0 && limit.handles.len() + added > limit.most
        };
        match self.new.iter().any(is_too_much) {
            true => Verdict::unschedulable("node(s) exceed max volume count"),
            false => Verdict::Fits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::VolumeLimit;
    use crate::plugins::test_world::{filter_in, node, pod};
    use serde_json::{Value, json};
    use std::sync::Arc;

    #[test]
    fn a_node_takes_no_more_volumes_than_it_says() {
        let check = |most: usize, held: &[&str], claims: &[&str], fits: bool| {
            let limit = VolumeLimit { most, handles: held.iter().map(|&handle| handle.to_owned()).collect() };
            let bound = |name: &str| json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"volumeName": format!("pv-{name}")}});
            let volume = |name: &str| {
                json!({"metadata": {"name": format!("pv-{name}")},
                       "spec": {"csi": {"driver": "d.io", "volumeHandle": name}}})
            };
            let late = json!({"metadata": {"name": "late", "namespace": "d"}, "spec": {"storageClassName": "class"}});
            let class = json!({"metadata": {"name": "class"}, "provisioner": "d.io"});
            let world = Surroundings {
                volume_limits: [("n".to_owned(), [("d.io".to_owned(), limit)].into())].into(),
                claims: [bound("a"), bound("b"), late]
                    .map(|value| Arc::new(serde_json::from_value(value).unwrap()))
                    .into(),
                volumes: [volume("a"), volume("b")]
                    .map(|value| Arc::new(serde_json::from_value(value).unwrap()))
                    .into(),
                storage_classes: vec![Arc::new(serde_json::from_value(class).unwrap())],
                ..Surroundings::default()
            };
            let volumes: Vec<Value> =
                claims.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}})).collect();
            let pod = pod(json!({"metadata": {"name": "p", "namespace": "d"},
                                 "spec": {"containers": [], "volumes": volumes}}));
            let verdicts =
                filter_in(&NodeVolumeLimits, &pod, &[node(json!({"metadata": {"name": "n"}}), Vec::new())], &world);
            assert_eq!(verdicts[0].fits(), fits, "{most} {held:?} {claims:?}");
        };
        check(2, &["x"], &["a"], true);
        check(1, &["x"], &["a"], false);
        check(1, &["a"], &["a"], true);
        check(2, &["x"], &["a", "b"], false);
        check(2, &["x"], &["a", "late"], false);
        check(3, &["x"], &["a", "late"], true);
        check(0, &[], &["missing"], true);
    }
}
