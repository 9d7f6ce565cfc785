//! Profiles: which plugins take part in the decisions about pods of one `spec.schedulerName`, and with what weight.
//!
//! Pure. Invariants: a plugin is in a profile at most once; every profile can sort, filter and bind.

use std::time::Duration;

use crate::configuration::{
    ConfigurationError, DefaultPreemptionArgs, KubeSchedulerConfiguration, PluginName, PluginSet, ProfileConfiguration,
    VolumeBindingArgs,
};
use crate::framework::Plugin;
use crate::plugins::new_plugin;

/// The plugins that a profile has unless it says otherwise, with the weights of their scores.
const DEFAULT: [(&str, i32); 20] = [
    ("SchedulingGates", 0),
    ("PrioritySort", 0),
    ("NodeUnschedulable", 0),
    ("NodeName", 0),
    ("TaintToleration", 3),
    ("NodeAffinity", 2),
    ("NodePorts", 0),
    ("NodeResourcesFit", 1),
    ("VolumeRestrictions", 0),
    ("NodeVolumeLimits", 0),
    ("VolumeBinding", 0),
    ("VolumeZone", 0),
    ("PodTopologySpread", 2),
    ("InterPodAffinity", 2),
    ("DynamicResources", 2),
    ("DefaultPreemption", 0),
    ("NodeResourcesBalancedAllocation", 1),
    ("ImageLocality", 1),
    ("DefaultBinder", 0),
    ("NodeDeclaredFeatures", 0),
];

/// A point at which plugins take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    QueueSort,
    Filter,
    PostFilter,
    Score,
    Bind,
}

impl Point {
    /// The name of the interface upstream.
    fn name(self) -> &'static str {
        match self {
            Self::QueueSort => "QueueSortPlugin",
            Self::Filter => "FilterPlugin",
            Self::PostFilter => "PostFilterPlugin",
            Self::Score => "ScorePlugin",
            Self::Bind => "BindPlugin",
        }
    }

    fn has(self, plugin: &str) -> bool {
        match plugin {
            "PrioritySort" => self == Self::QueueSort,
            "DefaultPreemption" => self == Self::PostFilter,
            "DefaultBinder" => self == Self::Bind,
            "TaintToleration" | "NodeAffinity" | "NodeResourcesFit" | "PodTopologySpread" | "InterPodAffinity" => {
                matches!(self, Self::Filter | Self::Score)
            }
            "DynamicResources" => matches!(self, Self::Filter | Self::PostFilter | Self::Score),
            "NodeResourcesBalancedAllocation" | "ImageLocality" => self == Self::Score,
            "SchedulingGates" => false,
            _ => self == Self::Filter,
        }
    }
}

/// A plugin in a profile.
pub(crate) struct Entry {
    pub(crate) plugin: Box<dyn Plugin>,
    /// Whether it may refuse nodes.
    pub(crate) filters: bool,
    /// How much its score counts; nothing at 0.
    pub(crate) weight: i64,
}

/// A profile.
pub(crate) struct Profile {
    pub(crate) scheduler_name: String,
    pub(crate) plugins: Vec<Entry>,
    /// How many nodes of a hundred are enough; 0 where that follows from the cluster's size.
    pub(crate) percentage_of_nodes_to_score: u8,
    /// How hard a preemption tries; absent where nothing is preempted.
    pub(crate) preemption: Option<DefaultPreemptionArgs>,
    /// How long a pod's volumes may take to be bound.
    pub(crate) bind_timeout: Duration,
}

impl Default for Profile {
    fn default() -> Self {
        let configuration = KubeSchedulerConfiguration::default();
        profile(&configuration, &configuration.profiles[0]).expect("the default profile is one")
    }
}

impl Profile {
    /// A plugin by its name.
    pub(crate) fn plugin(&self, name: &str) -> Option<&dyn Plugin> {
        self.plugins.iter().find(|entry| entry.plugin.name() == name).map(|entry| &*entry.plugin)
    }

    /// Whether more than one fitting node is of any use.
    pub(crate) fn scores(&self) -> bool {
        self.plugins.iter().any(|entry| entry.weight > 0)
    }
}

/// The profiles of a configuration.
pub(crate) fn profiles(configuration: &KubeSchedulerConfiguration) -> Result<Vec<Profile>, ConfigurationError> {
    configuration.profiles.iter().map(|one| profile(configuration, one)).collect()
}

fn profile(
    configuration: &KubeSchedulerConfiguration,
    said: &ProfileConfiguration,
) -> Result<Profile, ConfigurationError> {
    let sets = &said.plugins;
    let multi_point = multi_point(&sets.multi_point);
    if let Some(unknown) = multi_point.iter().find(|plugin| !is_known(&plugin.name)) {
        return refuse(format!("PreEnqueuePlugin {:?} does not exist", unknown.name));
    }
    let at = |point, set| enabled(point, set, &multi_point);
    let sorters = at(Point::QueueSort, &sets.queue_sort)?.len();
    if sorters != 1 {
        let name = &said.scheduler_name;
        return refuse(format!(
            "only one queue sort plugin required for profile with scheduler name {name:?}, but got {sorters}"
        ));
    }
    let binds_outside = configuration.extenders.iter().any(|extender| !extender.bind_verb.is_empty());
    if at(Point::Bind, &sets.bind)?.is_empty() && !binds_outside {
        let name = &said.scheduler_name;
        return refuse(format!("at least one bind plugin is needed for profile with scheduler name {name:?}"));
    }
    // A plugin that is not asked beforehand has nothing to say afterwards.
    let mut filters = at(Point::Filter, &sets.filter)?;
    filters.retain(|plugin| !sets.pre_filter.disables(&plugin.name));
    let mut scores = at(Point::Score, &sets.score)?;
    scores.retain(|plugin| !sets.pre_score.disables(&plugin.name));
    let preempts = at(Point::PostFilter, &sets.post_filter)?.iter().any(|plugin| plugin.name == "DefaultPreemption");
    let preemption = said.arguments("DefaultPreemption").map_err(ConfigurationError::Undecodable)?;
    let binding: VolumeBindingArgs = said.arguments("VolumeBinding").map_err(ConfigurationError::Undecodable)?;
    let percentage = said.percentage_of_nodes_to_score.or(configuration.percentage_of_nodes_to_score);
    let resources = configuration.extenders.iter().flat_map(|extender| &extender.managed_resources);
    let managed: Vec<String> =
        resources.filter(|resource| resource.ignored_by_scheduler).map(|resource| resource.name.clone()).collect();
    Ok(Profile {
        scheduler_name: said.scheduler_name.clone(),
        plugins: entries(said, &filters, &scores, &managed).map_err(ConfigurationError::Undecodable)?,
        percentage_of_nodes_to_score: u8::try_from(percentage.unwrap_or_default()).unwrap_or_default(),
        preemption: preempts.then_some(preemption),
        bind_timeout: Duration::from_secs(u64::try_from(binding.bind_timeout_seconds).unwrap_or_default()),
    })
}

fn entries(
    said: &ProfileConfiguration,
    filters: &[PluginName],
    scores: &[PluginName],
    managed_elsewhere: &[String],
) -> Result<Vec<Entry>, serde_json::Error> {
    let mut entries: Vec<Entry> = Vec::new();
    for named in filters.iter().chain(scores) {
        if entries.iter().any(|entry| entry.plugin.name() == named.name) {
            continue;
        }
        let Some(plugin) = new_plugin(&named.name, said, managed_elsewhere)? else { continue };
        let weight = scores.iter().find(|plugin| plugin.name == named.name).map(|plugin| plugin.weight.unwrap_or(1));
        let weight = i64::from(weight.map_or(0, |weight| if weight == 0 { 1 } else { weight }));
        let filters = filters.iter().any(|plugin| plugin.name == named.name);
        entries.push(Entry { plugin, filters, weight });
    }
    Ok(entries)
}

/// What takes part wherever it can: the defaults as the profile changes them, and what it adds.
fn multi_point(said: &PluginSet) -> Vec<PluginName> {
    let mut plugins: Vec<PluginName> = DEFAULT
        .iter()
        .filter(|(name, _)| !said.disables(name))
        .map(|(name, weight)| PluginName { name: (*name).to_owned(), weight: Some(*weight) })
        .collect();
    for named in &said.enabled {
        match plugins.iter_mut().find(|plugin| plugin.name == named.name) {
            Some(plugin) => *plugin = named.clone(),
            None => plugins.push(named.clone()),
        }
    }
    plugins
}

/// What takes part at a point: in upstream's order, first what the point's own set has of the others in other ways, then
/// the others, then what only the point has.
fn enabled(point: Point, own: &PluginSet, multi_point: &[PluginName]) -> Result<Vec<PluginName>, ConfigurationError> {
    for (index, plugin) in own.enabled.iter().enumerate() {
        if !is_known(&plugin.name) {
            return refuse(format!("{} {:?} does not exist", point.name(), plugin.name));
        }
        if !point.has(&plugin.name) {
            return refuse(format!("plugin {:?} does not extend {} plugin", plugin.name, point.name()));
        }
        if own.enabled[..index].iter().any(|before| before.name == plugin.name) {
            return refuse(format!("plugin {:?} already registered as {:?}", plugin.name, point.name()));
        }
    }
    let is_own = |plugin: &PluginName| own.enabled.iter().any(|other| other.name == plugin.name);
    let is_general = |plugin: &PluginName| multi_point.iter().any(|other| other.name == plugin.name);
    let general =
        multi_point.iter().filter(|plugin| point.has(&plugin.name) && !own.disables(&plugin.name) && !is_own(plugin));
    let (overriding, alone): (Vec<&PluginName>, Vec<&PluginName>) =
        own.enabled.iter().partition(|plugin| is_general(plugin));
    Ok(overriding.into_iter().chain(general).chain(alone).cloned().collect())
}

fn is_known(name: &str) -> bool {
    DEFAULT.iter().any(|(known, _)| *known == name)
}

fn refuse<T>(why: String) -> Result<T, ConfigurationError> {
    Err(ConfigurationError::Invalid(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plugins that filter, and those that score with their weights.
    fn check(plugins: &str, filters: &[&str], scores: &[(&str, i64)]) {
        let text = format!(
            "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
             profiles: [{{plugins: {plugins}}}]\n"
        );
        let profile = profiles(&KubeSchedulerConfiguration::from_yaml(&text).unwrap()).unwrap().remove(0);
        let filtering: Vec<&str> =
            profile.plugins.iter().filter(|entry| entry.filters).map(|entry| entry.plugin.name()).collect();
        assert_eq!(filtering, filters, "{plugins}");
        let scoring: Vec<(&str, i64)> = profile
            .plugins
            .iter()
            .filter(|entry| entry.weight > 0)
            .map(|entry| (entry.plugin.name(), entry.weight))
            .collect();
        assert_eq!(scoring, scores, "{plugins}");
    }

    #[test]
    fn sets_say_who_takes_part() {
        let none = "filter: {disabled: [{name: '*'}]}, score: {disabled: [{name: '*'}]";
        check(
            &format!("{{{none}, enabled: [{{name: NodeResourcesFit, weight: 7}}]}}}}"),
            &[],
            &[("NodeResourcesFit", 7)],
        );
        check(
            "{multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: DefaultBinder}, \
             {name: TaintToleration, weight: 5}, {name: NodeName}]}, score: {enabled: [{name: ImageLocality}]}}",
            &["TaintToleration", "NodeName"],
            &[("TaintToleration", 5), ("ImageLocality", 1)],
        );
        check(
            "{multiPoint: {disabled: [{name: NodePorts}]}, preFilter: {disabled: [{name: VolumeZone}]}, \
             filter: {enabled: [{name: InterPodAffinity}], disabled: [{name: NodeVolumeLimits}]}, \
             score: {disabled: [{name: TaintToleration}, {name: ImageLocality}, {name: DynamicResources}]}}",
            &[
                "InterPodAffinity",
                "NodeUnschedulable",
                "NodeName",
                "TaintToleration",
                "NodeAffinity",
                "NodeResourcesFit",
                "VolumeRestrictions",
                "VolumeBinding",
                "PodTopologySpread",
                "DynamicResources",
                "NodeDeclaredFeatures",
            ],
            &[
                ("InterPodAffinity", 2),
                ("NodeAffinity", 2),
                ("NodeResourcesFit", 1),
                ("PodTopologySpread", 2),
                ("NodeResourcesBalancedAllocation", 1),
            ],
        );
    }

    #[test]
    fn the_default_profile_preempts_and_binds() {
        let profile = Profile::default();
        assert_eq!(profile.scheduler_name, "default-scheduler");
        assert_eq!(profile.preemption.as_ref().map(|args| args.min_candidate_nodes_absolute), Some(100));
        assert_eq!(profile.bind_timeout, Duration::from_secs(600));
        assert!(profile.scores() && profile.plugin("NodeName").is_some() && profile.plugin("Other").is_none());
    }
}
