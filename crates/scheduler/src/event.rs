//! What happens in the cluster, as far as it may let a pod run that found no node.
//!
//! Not the changes themselves: what they mean for the cache is told to the cache first. Invariant: what changed nothing
//! that a plugin looks at (a heartbeat, a container's state) is no event.

use k8s_openapi::api::core::v1::Node;
use kedge_client::{Change, object_key};
use kedge_meta::ObjectKey;

use crate::node_info::NodeInfo;
use crate::nominated::Nominated;
use crate::pod_info::PodInfo;

/// What sort of thing an object of storage or of devices is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    Claim,
    Volume,
    StorageClass,
    CsiNode,
    StorageCapacity,
    Attachment,
    Devices,
}

/// The name of the kind of device classes.
pub(crate) const DEVICE_CLASS: &str = "DeviceClass";

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Add,
    Update,
    Delete,
}

/// A change of an object of storage or of devices.
#[derive(Debug, Clone)]
pub(crate) struct ObjectChange {
    pub(crate) kind: EventKind,
    /// The kind's name upstream.
    pub(crate) resource: &'static str,
    pub(crate) action: Action,
    pub(crate) key: ObjectKey,
}

impl ObjectChange {
    pub(crate) fn new<K: kube::Resource>(kind: EventKind, resource: &'static str, change: &Change<K>) -> Self {
        let action = match change {
            Change::Added(_) => Action::Add,
            Change::Updated { .. } => Action::Update,
            Change::Deleted(_) => Action::Delete,
        };
        Self { kind, resource, action, key: object_key(&**change.object()) }
    }
}

/// A node that a pod has left, with those to whom it was promised.
#[derive(Clone, Copy)]
pub(crate) struct Freed<'a> {
    pub(crate) node: &'a NodeInfo,
    pub(crate) nominated: &'a Nominated,
}

impl<'a> Freed<'a> {
    /// Who stays there, or is promised to, whoever of lower priority has to go.
    pub(crate) fn keeps(&self, priority: i32) -> impl Iterator<Item = &'a PodInfo> {
        let staying = self.node.pods.iter().filter(move |pod| pod.priority >= priority);
        staying.chain(self.nominated.as_important(&self.node.name, priority)).map(|pod| &**pod)
    }
}

/// Something that happened.
#[derive(Clone, Copy)]
pub(crate) enum Event<'a> {
    /// A node came.
    NodeAdd(&'a NodeInfo),
    /// A node changed in what plugins look at; as it is now, with its pods.
    NodeUpdate { old: &'a Node, new: &'a NodeInfo },
    /// A node went.
    NodeDelete(&'a Node),
    /// A pod has been placed.
    AssignedPodAdd(&'a PodInfo),
    /// A placed pod has other labels or requests now.
    AssignedPodUpdate { old: &'a PodInfo, new: &'a PodInfo },
    /// A placed pod is over or gone; with where it was, while that is there.
    AssignedPodDelete(&'a PodInfo, Option<Freed<'a>>),
    /// An object of storage or of devices changed.
    Object(&'a ObjectChange),
}

impl Event<'_> {
    /// Upstream's name of the event in metrics.
    pub(crate) fn name(&self) -> String {
        let (resource, action) = match self {
            Self::NodeAdd(_) => ("Node", Action::Add),
            Self::NodeUpdate { .. } => ("Node", Action::Update),
            Self::NodeDelete(_) => ("Node", Action::Delete),
            Self::AssignedPodAdd(_) => ("AssignedPod", Action::Add),
            Self::AssignedPodUpdate { .. } => ("AssignedPod", Action::Update),
            Self::AssignedPodDelete(..) => ("AssignedPod", Action::Delete),
            Self::Object(change) => (change.resource, change.action),
        };
        format!("{resource}{action:?}")
    }

    /// Whether the node came, or changed in a way that `is_other` sees; the node as it is now.
    pub(crate) fn changed_node(&self, is_other: impl Fn(&Node, &Node) -> bool) -> Option<&NodeInfo> {
        match self {
            Self::NodeAdd(node) => Some(node),
            Self::NodeUpdate { old, new } if is_other(old, &new.node) => Some(new),
            _ => None,
        }
    }
}

/// Whether the nodes' labels differ.
pub(crate) fn other_labels(old: &Node, new: &Node) -> bool {
    old.metadata.labels != new.metadata.labels
}

/// Whether the nodes' taints differ.
pub(crate) fn other_taints(old: &Node, new: &Node) -> bool {
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    taints(old) != taints(new)
}

/// Whether the nodes declare different features.
pub(crate) fn other_features(old: &Node, new: &Node) -> bool {
    let features = |node: &Node| node.status.as_ref().and_then(|status| status.declared_features.clone());
    features(old).unwrap_or_default() != features(new).unwrap_or_default()
}

/// Whether one of the nodes is cordoned and the other not.
pub(crate) fn other_cordon(old: &Node, new: &Node) -> bool {
    let cordon = |node: &Node| node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default();
    cordon(old) != cordon(new)
}
