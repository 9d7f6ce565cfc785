//! VolumeRestrictions: a claim for one pod only is used by one pod only, and old kinds of disks by one pod on a node.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Volume;

use super::volume_binding::{claim_names, is_own_claim};
use crate::event::{Event, EventKind};
use crate::framework::{Cycle, Evaluation, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

pub(crate) struct VolumeRestrictions;

struct Restrictions<'a> {
    /// Another pod uses a claim that is for one pod.
    is_taken: bool,
    disks: Vec<&'a Volume>,
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let disks: Vec<&Volume> = cycle.pod.disks.iter().collect();
        let single = single_claims(cycle);
        if disks.is_empty() && single.is_empty() {
            return None;
        }
        let uses = |pod: &PodInfo| {
            pod.key.namespace == cycle.pod.key.namespace
                && pod.key != cycle.pod.key
                && claim_names(pod).iter().any(|(name, _)| single.contains(name))
        };
        let is_taken = !single.is_empty() && cycle.nodes.iter().any(|node| node.pods.iter().any(|pod| uses(pod)));
        Some(Box::new(Restrictions { is_taken, disks }))
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::NodeAdd(_) => true,
            Event::AssignedPodDelete(other, _) => {
                let shared = |(name, _): &(String, bool)| claim_names(other).iter().any(|(held, _)| held == name);
                let same = |disk: &Volume| other.disks.iter().any(|held| conflict(disk, held));
                (other.namespace() == pod.namespace() && claim_names(pod).iter().any(shared))
                    || pod.disks.iter().any(same)
            }
            Event::Object(change) => change.kind == EventKind::Claim && is_own_claim(pod, &change.key),
            _ => false,
        }
    }
}

/// The pod's claims that only one pod may use.
fn single_claims(cycle: &Cycle<'_>) -> HashSet<String> {
    let is_single = |name: &&String| {
        cycle.surroundings.claims.iter().any(|claim| {
            let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
            claim.metadata.name.as_ref() == Some(*name)
                && claim.metadata.namespace.as_deref() == Some(cycle.pod.namespace())
                && modes.iter().any(|mode| mode == "ReadWriteOncePod")
        })
    };
    claim_names(cycle.pod).iter().map(|(name, _)| name).filter(is_single).cloned().collect()
}

/// Whether two volumes are one disk, which can't be used twice on a node. Readers may share most of them.
fn conflict(one: &Volume, other: &Volume) -> bool {
    let both_read = |one: Option<bool>, other: Option<bool>| one == Some(true) && other == Some(true);
    if let (Some(one), Some(other)) = (&one.gce_persistent_disk, &other.gce_persistent_disk) {
        return one.pd_name == other.pd_name && !both_read(one.read_only, other.read_only);
    }
    if let (Some(one), Some(other)) = (&one.aws_elastic_block_store, &other.aws_elastic_block_store) {
        return one.volume_id == other.volume_id;
    }
    if let (Some(one), Some(other)) = (&one.iscsi, &other.iscsi) {
        return one.iqn == other.iqn && !both_read(one.read_only, other.read_only);
    }
    if let (Some(one), Some(other)) = (&one.rbd, &other.rbd) {
        return one.monitors.iter().any(|monitor| other.monitors.contains(monitor))
            && one.pool == other.pool
            && one.image == other.image
            && !both_read(one.read_only, other.read_only);
    }
    false
}

impl Evaluation for Restrictions<'_> {
    fn is_local(&self) -> bool {
        !self.is_taken
    }

    fn filter(&self, node: &NodeInfo) -> Verdict {
        let has_conflict =
            |disk: &&Volume| node.pods.iter().any(|pod| pod.disks.iter().any(|other| conflict(disk, other)));
        if self.disks.iter().any(has_conflict) {
            return Verdict::unschedulable("node(s) had no available disk");
        }
        if self.is_taken {
            let text = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
            return Verdict::unschedulable(text);
        }
        Verdict::Fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::Surroundings;
    use crate::plugins::test_world::{filter, filter_in, node, pod};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn with(name: &str, volume: Value) -> PodInfo {
        let mut volume = volume;
        volume["name"] = json!("v");
        pod(json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"containers": [], "volumes": [volume]}}))
    }

    #[test]
    fn a_disk_is_used_once_on_a_node() {
        let check = |one: Value, other: Value, conflicts: bool| {
            let nodes = [node(json!({"metadata": {"name": "n"}}), vec![with("other", other)])];
            let verdicts = filter(&VolumeRestrictions, &with("p", one.clone()), &nodes);
            assert_eq!(!verdicts[0].fits(), conflicts, "{one}");
        };
        let disk = |name: &str, read_only: bool| json!({"gcePersistentDisk": {"pdName": name, "readOnly": read_only}});
        check(disk("a", false), disk("a", true), true);
        check(disk("a", true), disk("a", true), false);
        check(disk("a", false), disk("b", false), false);
        let block = json!({"awsElasticBlockStore": {"volumeID": "x", "readOnly": true}});
        check(block.clone(), block, true);
        let iscsi = json!({"iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t"}});
        check(iscsi.clone(), iscsi, true);
        let rbd = |monitor: &str| json!({"rbd": {"image": "i", "pool": "p", "monitors": [monitor, "m"]}});
        check(rbd("a"), rbd("b"), true);
    }

    #[test]
    fn a_claim_for_one_pod_is_used_by_one() {
        let claim = |modes: Value| {
            let value = json!({"metadata": {"name": "c", "namespace": "d"}, "spec": {"accessModes": modes}});
            Surroundings { claims: vec![Arc::new(serde_json::from_value(value).unwrap())], ..Surroundings::default() }
        };
        let user = |name: &str| with(name, json!({"persistentVolumeClaim": {"claimName": "c"}}));
        let nodes = [
            node(json!({"metadata": {"name": "a"}}), vec![user("other")]),
            node(json!({"metadata": {"name": "b"}}), Vec::new()),
        ];
        let verdicts = filter_in(&VolumeRestrictions, &user("p"), &nodes, &claim(json!(["ReadWriteOncePod"])));
        assert!(verdicts.iter().all(|verdict| !verdict.fits()), "{verdicts:?}");
        let verdicts = filter_in(&VolumeRestrictions, &user("p"), &nodes, &claim(json!(["ReadWriteOnce"])));
        assert!(verdicts.iter().all(Verdict::fits), "{verdicts:?}");
    }
}
