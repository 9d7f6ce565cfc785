//! VolumeZone: volumes that carry labels of a zone or region are used there.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;

use super::volume_binding::{claim_names, is_fully_bound, is_own_claim};
use crate::event::{Event, EventKind, other_labels};
use crate::framework::{Cycle, Evaluation, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// The labels, each with the name that it had before.
const LABELS: [(&str, &str); 2] = [
    ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
];

pub(crate) struct VolumeZone;

struct Zones(Vec<Arc<PersistentVolume>>);

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let names = claim_names(cycle.pod);
        let claims = cycle.surroundings.claims.iter().filter(|claim| {
            let own = claim.metadata.name.as_deref();
            is_fully_bound(claim)
                && claim.metadata.namespace.as_deref() == Some(cycle.pod.namespace())
                && names.iter().any(|(name, _)| Some(name.as_str()) == own)
        });
        let volume_of = |name: &str| {
            let mut volumes = cycle.surroundings.volumes.iter();
            volumes.find(|volume| volume.metadata.name.as_deref() == Some(name)).cloned()
        };
        let named = claims.filter_map(|claim| volume_of(claim.spec.as_ref()?.volume_name.as_deref()?));
        let zoned: Vec<Arc<PersistentVolume>> = named.filter(|volume| is_zoned(volume)).collect();
        (!zoned.is_empty()).then(|| Box::new(Zones(zoned)) as Box<dyn Evaluation + 'a>)
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::Object(change) => match change.kind {
                EventKind::Claim => is_own_claim(pod, &change.key),
                kind => matches!(kind, EventKind::Volume | EventKind::StorageClass),
            },
            event => event.changed_node(other_labels).is_some(),
        }
    }
}

fn is_zoned(volume: &PersistentVolume) -> bool {
    let labels = volume.metadata.labels.as_ref();
    LABELS.iter().any(|(now, before)| labels.is_some_and(|all| all.contains_key(*now) || all.contains_key(*before)))
}

impl Evaluation for Zones {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let place = |(now, before): (&str, &str)| node.labels().get(now).or_else(|| node.labels().get(before));
        // A node that says nothing about its place takes all.
        if LABELS.into_iter().all(|label| place(label).is_none()) {
            return Verdict::Fits;
        }
        let is_here = |volume: &Arc<PersistentVolume>| {
            let labels = volume.metadata.labels.as_ref();
            LABELS.into_iter().all(|(now, before)| {
                let wanted = labels.and_then(|all| all.get(now).or_else(|| all.get(before)));
                // Several zones are written with two underscores between them.
                wanted.is_none_or(|wanted| {
                    place((now, before)).is_some_and(|own| wanted.split("__").any(|zone| zone == own))
                })
            })
        };
        match self.0.iter().all(is_here) {
            true => Verdict::Fits,
            false => Verdict::unresolvable("node(s) had no available volume zone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::Surroundings;
    use crate::plugins::test_world::{filter_in, node, pod};
    use serde_json::json;

    #[test]
    fn volumes_are_used_in_their_zone() {
        let check = |zone: &str, label: &str, expected: [bool; 3]| {
            let world = Surroundings {
                claims: vec![Arc::new(
                    serde_json::from_value(json!({
                        "metadata": {"name": "c", "namespace": "d",
                                     "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
                        "spec": {"volumeName": "v"}}))
                    .unwrap(),
                )],
                volumes: vec![Arc::new(
                    serde_json::from_value(json!({"metadata": {"name": "v", "labels": {label: zone}}})).unwrap(),
                )],
                ..Surroundings::default()
            };
            let nodes = [
                node(json!({"metadata": {"name": "1", "labels": {LABELS[0].0: "a"}}}), Vec::new()),
                node(json!({"metadata": {"name": "2", "labels": {LABELS[0].0: "b"}}}), Vec::new()),
                node(json!({"metadata": {"name": "3"}}), Vec::new()),
            ];
            let pod = pod(json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [], "volumes": [
                {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}));
            let verdicts = filter_in(&VolumeZone, &pod, &nodes, &world);
            assert_eq!(verdicts.iter().map(Verdict::fits).collect::<Vec<_>>(), expected, "{zone}");
        };
        check("a", LABELS[0].0, [true, false, true]);
        check("b", LABELS[0].1, [false, true, true]);
        check("a__b", LABELS[0].0, [true, true, true]);
        check("a", "other", [true, true, true]);
    }
}
