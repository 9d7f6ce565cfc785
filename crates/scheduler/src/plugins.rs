//! The plugins, one file each, under upstream's names.

mod dynamic_resources;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_declared_features;
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
    Attached, ClaimName, ClaimPlan, DeviceFacts, Extended, KnownClaim, allocation, attached, claim_entries, claim_name,
    claim_plans, extended_names, is_made_for, is_reserved_for, left_behind, not_ready, to_give_back,
};
pub(crate) use image_locality::image_names;
pub(crate) use node_declared_features::needed_features;
pub(crate) use volume_binding::{PodVolumes, SELECTED_NODE, claim_names, is_fully_bound, volumes_for};

use crate::configuration::ProfileConfiguration;
use crate::framework::Plugin;

/// A plugin by upstream's name, told what the profile says; none for names that only stand for what is always done.
pub(crate) fn new_plugin(
    name: &str,
    profile: &ProfileConfiguration,
    managed_elsewhere: &[String],
) -> Result<Option<Box<dyn Plugin>>, serde_json::Error> {
    let plugin: Box<dyn Plugin> = match name {
        "NodeUnschedulable" => Box::new(node_unschedulable::NodeUnschedulable),
        "NodeDeclaredFeatures" => Box::new(node_declared_features::NodeDeclaredFeatures),
        "NodeName" => Box::new(node_name::NodeName),
        "TaintToleration" => Box::new(taint_toleration::TaintToleration),
        "NodeAffinity" => Box::new(node_affinity::NodeAffinity::new(profile.arguments(name)?)),
        "NodePorts" => Box::new(node_ports::NodePorts),
        "NodeResourcesFit" => {
            Box::new(node_resources_fit::NodeResourcesFit::new(profile.arguments(name)?, managed_elsewhere))
        }
        "VolumeRestrictions" => Box::new(volume_restrictions::VolumeRestrictions),
        "NodeVolumeLimits" => Box::new(node_volume_limits::NodeVolumeLimits),
        "VolumeBinding" => Box::new(volume_binding::VolumeBinding),
        "VolumeZone" => Box::new(volume_zone::VolumeZone),
        "DynamicResources" => Box::new(dynamic_resources::DynamicResources),
        "PodTopologySpread" => Box::new(pod_topology_spread::PodTopologySpread::new(profile.arguments(name)?)),
        "InterPodAffinity" => Box::new(inter_pod_affinity::InterPodAffinity::new(profile.arguments(name)?)),
        "NodeResourcesBalancedAllocation" => {
            Box::new(node_resources_balanced::NodeResourcesBalancedAllocation::new(profile.arguments(name)?))
        }
        "ImageLocality" => Box::new(image_locality::ImageLocality),
        _ => return Ok(None),
    };
    Ok(Some(plugin))
}

/// Small worlds for the plugins' tests.
#[cfg(test)]
pub(crate) mod test_world {
    use std::sync::Arc;

    use serde_json::Value;

    use crate::framework::{Cycle, Plugin, Surroundings, Verdict};
    use crate::node_info::NodeInfo;
    use crate::pod_info::PodInfo;

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

    fn around(nodes: &[NodeInfo]) -> Surroundings {
        let has_affine_pods = nodes.iter().flat_map(|node| &node.shapes).any(|(shape, _)| shape.affinity.is_some());
        Surroundings { has_affine_pods, ..Surroundings::default() }
    }

    /// The verdicts of one plugin about all nodes.
    pub(crate) fn filter(plugin: &dyn Plugin, pod: &PodInfo, nodes: &[NodeInfo]) -> Vec<Verdict> {
        filter_in(plugin, pod, nodes, &around(nodes))
    }

    /// The verdicts of one plugin about all nodes in a larger world.
    pub(crate) fn filter_in(
        plugin: &dyn Plugin,
        pod: &PodInfo,
        nodes: &[NodeInfo],
        surroundings: &Surroundings,
    ) -> Vec<Verdict> {
        let nodes: Vec<Arc<NodeInfo>> = nodes.iter().cloned().map(Arc::new).collect();
        let cycle = Cycle { pod, nodes: &nodes, surroundings, cache: None };
        match plugin.prepare(&cycle) {
            None => vec![Verdict::Fits; nodes.len()],
            Some(evaluation) if evaluation.refusal().is_some() => {
                vec![Verdict::unresolvable(evaluation.refusal().expect("it was there")); nodes.len()]
            }
            Some(evaluation) => nodes.iter().map(|node| evaluation.filter(node)).collect(),
        }
    }

    /// The normalized scores of one plugin; empty where it has no opinion.
    pub(crate) fn score(plugin: &dyn Plugin, pod: &PodInfo, nodes: &[NodeInfo]) -> Vec<i64> {
        score_in(plugin, pod, nodes, &around(nodes))
    }

    /// The normalized scores of one plugin in a larger world.
    pub(crate) fn score_in(
        plugin: &dyn Plugin,
        pod: &PodInfo,
        nodes: &[NodeInfo],
        surroundings: &Surroundings,
    ) -> Vec<i64> {
        let nodes: Vec<Arc<NodeInfo>> = nodes.iter().cloned().map(Arc::new).collect();
        let cycle = Cycle { pod, nodes: &nodes, surroundings, cache: None };
        let Some(evaluation) = plugin.prepare(&cycle) else { return Vec::new() };
        let mut scores: Vec<i64> = nodes.iter().filter_map(|node| evaluation.score(node)).collect();
        evaluation.normalize(&mut scores);
        scores
    }
}
