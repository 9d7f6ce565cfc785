//! Upstream's extension points, as far as they are pure: filter, score, and what both prepare for one pod.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass};

use crate::cache::Cache;
use crate::event::Event;
use crate::node_info::NodeInfo;
use crate::plugins::DeviceFacts;
use crate::pod_info::PodInfo;
use crate::tallies::Topology;

/// The best score that a plugin gives a node.
pub(crate) const MAX_SCORE: i64 = 100;

/// Why a node is refused, in upstream's words.
pub(crate) type Reason = Cow<'static, str>;

/// A plugin's word about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The pod may run there.
    Fits,
    /// It may not, but could if other pods went away.
    Unschedulable(Arc<[Reason]>),
    /// It may not, whatever pods go away.
    Unresolvable(Arc<[Reason]>),
}

impl Verdict {
    pub(crate) fn unschedulable(reason: impl Into<Reason>) -> Self {
        Verdict::Unschedulable(Arc::new([reason.into()]))
    }

    pub(crate) fn unresolvable(reason: impl Into<Reason>) -> Self {
        Verdict::Unresolvable(Arc::new([reason.into()]))
    }

    pub(crate) fn fits(&self) -> bool {
        *self == Verdict::Fits
    }

    pub(crate) fn reasons(&self) -> &[Reason] {
        match self {
            Verdict::Fits => &[],
            Verdict::Unschedulable(reasons) | Verdict::Unresolvable(reasons) => reasons,
        }
    }
}

/// How many volumes of a driver a node takes, and which it has.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct VolumeLimit {
    pub(crate) most: usize,
    pub(crate) handles: BTreeSet<String>,
}

/// What plugins may look at besides pods and nodes.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// Labels of the pod's own namespace; of all where one of its terms selects namespaces.
    pub(crate) namespace_labels: BTreeMap<String, BTreeMap<String, String>>,
    /// On how many nodes each image lies that lies on any.
    pub(crate) image_spread: BTreeMap<String, usize>,
    /// Whether pods with affinity or anti-affinity to pods are placed.
    pub(crate) has_affine_pods: bool,
    pub(crate) claims: Vec<Arc<PersistentVolumeClaim>>,
    pub(crate) volumes: Vec<Arc<PersistentVolume>>,
    pub(crate) storage_classes: Vec<Arc<StorageClass>>,
    pub(crate) drivers: Vec<Arc<CSIDriver>>,
    pub(crate) capacities: Vec<Arc<CSIStorageCapacity>>,
    /// What nodes with limits say of them and hold, by node and driver.
    pub(crate) volume_limits: BTreeMap<String, BTreeMap<String, VolumeLimit>>,
    /// What there is of devices, where the pod has claims.
    pub(crate) devices: Option<DeviceFacts>,
    /// Label selectors (as maps) of the Services and owners that select the pod, for spreading without constraints.
    pub(crate) default_spread_selectors: Vec<BTreeMap<String, String>>,
}

/// One pod to be placed, and everything it may be placed on.
#[derive(Clone, Copy)]
pub(crate) struct Cycle<'a> {
    pub(crate) pod: &'a PodInfo,
    pub(crate) nodes: &'a [Arc<NodeInfo>],
    pub(crate) surroundings: &'a Surroundings,
    /// Where the nodes are as the cache has them: the cache, which knows some things about all of them together.
    pub(crate) cache: Option<&'a Cache>,
}

/// What a plugin prepared for one cycle.
pub(crate) trait Evaluation {
    /// Why the pod can run on no node at all, whatever the nodes are like.
    fn refusal(&self) -> Option<String> {
        None
    }

    /// The only nodes on which the pod can run, where the pod names them.
    fn only_nodes(&self) -> Option<BTreeSet<String>> {
        None
    }

    /// Whether its word about a node depends on that node alone, and on no pods elsewhere.
    fn is_local(&self) -> bool {
        true
    }

    /// Whether the pod may run on a node.
    fn filter(&self, _node: &NodeInfo) -> Verdict {
        Verdict::Fits
    }

    /// How much a node is liked, in any unit; `None` where the plugin has no opinion in this cycle.
    fn score(&self, _node: &NodeInfo) -> Option<i64> {
        None
    }

    /// Brings the scores of all nodes that fit into 0..=100.
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// A plugin: upstream's name, its evaluation of a cycle, and what wakes the pods that it refused.
pub(crate) trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    /// Prepares for a cycle; `None` where the pod gives the plugin nothing to say.
    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>>;

    /// Which tallies it could use for a pod; without them it counts all nodes itself.
    fn topologies(&self, _pod: &PodInfo, _surroundings: &Surroundings) -> Vec<Topology> {
        Vec::new()
    }

    /// Whether a pod that this plugin refused may fit after an event (upstream's queueing hint). One that says yes too
    /// often costs an attempt, one that says no too often leaves the pod waiting for five minutes.
    fn may_help(&self, pod: &PodInfo, event: &Event<'_>) -> bool;
}

/// Scales scores so that the highest becomes 100; `reverse` makes the lowest the best.
pub(crate) fn scale_to_max(scores: &mut [i64], reverse: bool) {
    let most = scores.iter().copied().max().unwrap_or_default();
    for score in scores {
        let scaled = if most == 0 { 0 } else { *score * MAX_SCORE / most };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}
