//! Which nodes count for a constraint: by default not those that the pod's selector or affinity excludes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, PodSpec, Toleration, TopologySpreadConstraint};

use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::selectors::{NodeTerms, tolerated};

/// Whether neither what the pod wants of its node nor taints decide which nodes count.
pub(super) fn counts_all_nodes(constraint: &TopologySpreadConstraint, pod: &PodInfo) -> bool {
    let spec = pod.pod().spec.as_ref();
    let wants = spec.is_some_and(|spec| spec.node_selector.is_some() || required_affinity(spec).is_some());
    (!wants || constraint.node_affinity_policy.as_deref() == Some("Ignore"))
        && constraint.node_taints_policy.as_deref() != Some("Honor")
}

fn required_affinity(spec: &PodSpec) -> Option<&NodeSelector> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    affinity.required_during_scheduling_ignored_during_execution.as_ref()
}

/// Which nodes count for the skew of one pod.
pub(super) struct Participation<'a> {
    selector: Option<&'a BTreeMap<String, String>>,
    required: Option<NodeTerms>,
    /// What the pod tolerates, where taints count.
    tolerations: Option<&'a [Toleration]>,
}

impl<'a> Participation<'a> {
    pub(super) fn new(constraint: &TopologySpreadConstraint, pod: &'a PodInfo) -> Self {
        let spec = pod.pod().spec.as_ref();
        let asked = spec.filter(|_| constraint.node_affinity_policy.as_deref() != Some("Ignore"));
        let taints = spec.filter(|_| constraint.node_taints_policy.as_deref() == Some("Honor"));
        Self {
            selector: asked.and_then(|spec| spec.node_selector.as_ref()),
            required: asked.and_then(required_affinity).map(NodeTerms::new),
            tolerations: taints.map(|spec| spec.tolerations.as_deref().unwrap_or_default()),
        }
    }

    pub(super) fn includes(&self, node: &NodeInfo) -> bool {
        let labels = node.labels();
        let selected = self.selector.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
        if !selected || !self.required.as_ref().is_none_or(|terms| terms.match_node(node)) {
            return false;
        }
        let Some(tolerations) = self.tolerations else { return true };
        let taints = node.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let mut hard = taints.iter().filter(|taint| taint.effect != "PreferNoSchedule");
        hard.all(|taint| tolerated(taint, tolerations))
    }
}
