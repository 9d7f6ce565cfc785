//! The plugins, one file each, under upstream's names.

mod dynamic_resources;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_balanced;
mod node_resources_fit;
mod node_unschedulable;
mod node_volume_limits;
mod pod_topology_spread;
mod taint_toleration;
mod volume_binding;
mod volume_restrictions;
mod volume_zone;

pub(crate) use dynamic_resources::{
    Attached, ClaimName, ClaimPlan, DeviceFacts, KnownClaim, allocation, attached, claim_entries, claim_name,
    claim_plans, is_reserved_for, not_ready, to_give_back,
};
pub(crate) use volume_binding::{PodVolumes, SELECTED_NODE, claim_names, is_fully_bound, volumes_for};

use crate::framework::Plugin;

/// The default profile, cheap filters first.
pub(crate) fn default_plugins() -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(node_unschedulable::NodeUnschedulable),
        Box::new(node_name::NodeName),
        Box::new(taint_toleration::TaintToleration),
        Box::new(node_affinity::NodeAffinity),
        Box::new(node_ports::NodePorts),
        Box::new(node_resources_fit::NodeResourcesFit),
        Box::new(volume_restrictions::VolumeRestrictions),
        Box::new(node_volume_limits::NodeVolumeLimits),
        Box::new(volume_binding::VolumeBinding),
        Box::new(volume_zone::VolumeZone),
        Box::new(dynamic_resources::DynamicResources),
        Box::new(pod_topology_spread::PodTopologySpread),
        Box::new(inter_pod_affinity::InterPodAffinity),
        Box::new(node_resources_balanced::NodeResourcesBalancedAllocation),
        Box::new(image_locality::ImageLocality),
    ]
}

/// Small worlds for the plugins' tests.
#[cfg(test)]
pub(crate) mod test_world {
    use std::sync::Arc;

    use serde_json::Value;

    use crate::framework::{Cycle, Plugin, Surroundings, Verdict};
    use crate::node_info::{NodeInfo, PodInfo};

    pub(crate) fn pod(value: Value) -> PodInfo {
        PodInfo::new(Arc::new(serde_json::from_value(value).expect("the test's pod is one")))
    }

    pub(crate) fn node(value: Value, pods: Vec<PodInfo>) -> NodeInfo {
        let mut info = NodeInfo::new(Arc::new(serde_json::from_value(value).expect("the test's node is one")));
        for pod in pods {
            info.add_pod(Arc::new(pod));
        }
        info
    }

    /// The verdicts of one plugin about all nodes.
    pub(crate) fn filter(plugin: &dyn Plugin, pod: &PodInfo, nodes: &[NodeInfo]) -> Vec<Verdict> {
        filter_in(plugin, pod, nodes, &Surroundings::default())
    }

    /// The verdicts of one plugin about all nodes in a larger world.
    pub(crate) fn filter_in(
        plugin: &dyn Plugin,
        pod: &PodInfo,
        nodes: &[NodeInfo],
        surroundings: &Surroundings,
    ) -> Vec<Verdict> {
        let nodes: Vec<&NodeInfo> = nodes.iter().collect();
        let cycle = Cycle { pod, nodes: &nodes, surroundings };
        match plugin.prepare(&cycle) {
            None => vec![Verdict::Fits; nodes.len()],
            Some(evaluation) if evaluation.refusal().is_some() => {
                vec![Verdict::Unresolvable(evaluation.refusal().expect("it was there")); nodes.len()]
            }
            Some(evaluation) => nodes.iter().map(|node| evaluation.filter(node)).collect(),
        }
    }

    /// The normalized scores of one plugin; empty where it has no opinion.
    pub(crate) fn score(plugin: &dyn Plugin, pod: &PodInfo, nodes: &[NodeInfo]) -> Vec<i64> {
        score_in(plugin, pod, nodes, &Surroundings::default())
    }

    /// The normalized scores of one plugin in a larger world.
    pub(crate) fn score_in(
        plugin: &dyn Plugin,
        pod: &PodInfo,
        nodes: &[NodeInfo],
        surroundings: &Surroundings,
    ) -> Vec<i64> {
        let nodes: Vec<&NodeInfo> = nodes.iter().collect();
        let cycle = Cycle { pod, nodes: &nodes, surroundings };
        let Some(evaluation) = plugin.prepare(&cycle) else { return Vec::new() };
        let mut scores: Vec<i64> = nodes.iter().filter_map(|node| evaluation.score(node)).collect();
        evaluation.normalize(&mut scores);
        scores
    }
}
