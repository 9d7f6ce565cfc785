//! What plugins can be told in `pluginConfig`, with upstream's defaults.

use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ProfileConfiguration;

/// Plugins whose arguments have an effect.
const READ: [&str; 7] = [
    "DefaultPreemption",
    "InterPodAffinity",
    "NodeAffinity",
    "NodeResourcesBalancedAllocation",
    "NodeResourcesFit",
    "PodTopologySpread",
    "VolumeBinding",
];

pub(super) fn is_read(plugin: &str) -> bool {
    READ.contains(&plugin)
}

/// Declares arguments: what every file of upstream's may say about itself is let through.
macro_rules! arguments {
    ($(#[$about:meta])* $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Deserialize)]
        #[serde(rename_all = "camelCase", default, deny_unknown_fields)]
        pub(crate) struct $name {
            api_version: Option<String>,
            kind: Option<String>,
            $(pub(crate) $field: $type,)*
        }
    };
}

arguments! {
    DefaultPreemptionArgs {
        min_candidate_nodes_percentage: i32,
        min_candidate_nodes_absolute: i32,
    }
}

arguments! {
    InterPodAffinityArgs {
        hard_pod_affinity_weight: i32,
        ignore_preferred_terms_of_existing_pods: bool,
    }
}

arguments! {
    #[derive(Default)]
    NodeAffinityArgs {
        added_affinity: Option<NodeAffinity>,
    }
}

arguments! {
    BalancedAllocationArgs {
        resources: Vec<ResourceSpec>,
    }
}

arguments! {
    #[derive(Default)]
    FitArgs {
        ignored_resources: Vec<String>,
        ignored_resource_groups: Vec<String>,
        scoring_strategy: ScoringStrategy,
    }
}

arguments! {
    SpreadArgs {
        default_constraints: Vec<TopologySpreadConstraint>,
        defaulting_type: String,
    }
}

arguments! {
    VolumeBindingArgs {
        bind_timeout_seconds: i64,
        shape: Option<Vec<UtilizationShapePoint>>,
    }
}

impl Default for DefaultPreemptionArgs {
    fn default() -> Self {
        Self { api_version: None, kind: None, min_candidate_nodes_percentage: 10, min_candidate_nodes_absolute: 100 }
    }
}

impl Default for InterPodAffinityArgs {
    fn default() -> Self {
        Self {
            api_version: None,
            kind: None,
            hard_pod_affinity_weight: 1,
            ignore_preferred_terms_of_existing_pods: false,
        }
    }
}

impl Default for BalancedAllocationArgs {
    fn default() -> Self {
        Self { api_version: None, kind: None, resources: cpu_and_memory() }
    }
}

impl Default for SpreadArgs {
    fn default() -> Self {
        Self { api_version: None, kind: None, default_constraints: Vec::new(), defaulting_type: "System".to_owned() }
    }
}

impl Default for VolumeBindingArgs {
    fn default() -> Self {
        Self { api_version: None, kind: None, bind_timeout_seconds: 600, shape: None }
    }
}

/// A resource and how much it counts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ResourceSpec {
    pub(crate) name: String,
    pub(crate) weight: i64,
}

impl Default for ResourceSpec {
    fn default() -> Self {
        Self { name: String::new(), weight: 1 }
    }
}

fn cpu_and_memory() -> Vec<ResourceSpec> {
    ["cpu", "memory"].map(|name| ResourceSpec { name: name.to_owned(), weight: 1 }).into()
}

/// How nodes with room are compared.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct ScoringStrategy {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) resources: Vec<ResourceSpec>,
    pub(crate) requested_to_capacity_ratio: Option<Ratio>,
}

impl Default for ScoringStrategy {
    fn default() -> Self {
        Self { kind: "LeastAllocated".to_owned(), resources: cpu_and_memory(), requested_to_capacity_ratio: None }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ratio {
    pub(crate) shape: Vec<UtilizationShapePoint>,
}

/// A point of a broken line: at this percentage of use, this score out of ten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UtilizationShapePoint {
    pub(crate) utilization: i64,
    pub(crate) score: i64,
}

impl ProfileConfiguration {
    /// A plugin's arguments; the defaults where the profile says nothing about it.
    pub(crate) fn arguments<T: DeserializeOwned + Default>(&self, plugin: &str) -> Result<T, serde_json::Error> {
        let said = self.plugin_config.iter().find(|config| config.name == plugin);
        match said.map(|config| config.args.clone()).filter(|args| *args != Value::Null) {
            None => Ok(T::default()),
            Some(args) => serde_json::from_value(args),
        }
    }
}
