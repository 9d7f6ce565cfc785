//! What a file may not say, in upstream's words.

use std::collections::HashSet;

use kedge_meta::{FieldError, FieldPath, is_qualified_name};
use serde_json::{Value, json};

use super::leader::duration;
use super::{
    BalancedAllocationArgs, ConfigurationError, DefaultPreemptionArgs, ExtenderConfiguration, FitArgs,
    InterPodAffinityArgs, KubeSchedulerConfiguration, ProfileConfiguration, ResourceSpec, SpreadArgs,
    UtilizationShapePoint, VolumeBindingArgs,
};

const GONE_PLUGINS: [&str; 4] = ["AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"];

/// Collects errors.
#[derive(Default)]
struct Errors(Vec<String>);

impl Errors {
    fn invalid(&mut self, path: &FieldPath, value: impl Into<Value>, why: &str) {
        self.0.push(FieldError::invalid(path, &value.into(), why).to_string());
    }

    fn add(&mut self, error: &FieldError) {
        self.0.push(error.to_string());
    }
}

/// Whether the file is usable; everything that is wrong with it otherwise.
pub(super) fn validate(file: &KubeSchedulerConfiguration) -> Result<(), ConfigurationError> {
    let mut errors = Errors::default();
    leader_election(file, &mut errors);
    if file.parallelism() <= 0 {
        let why = "should be an integer value greater than zero";
        errors.invalid(&FieldPath::new("parallelism"), file.parallelism(), why);
    }
    profiles(file, &mut errors)?;
    percentage(&FieldPath::new("percentageOfNodesToScore"), file.percentage_of_nodes_to_score, &mut errors);
    if file.pod_initial_backoff_seconds <= 0 {
        let path = FieldPath::new("podInitialBackoffSeconds");
        errors.invalid(&path, file.pod_initial_backoff_seconds, "must be greater than 0");
    }
    if file.pod_max_backoff_seconds < file.pod_initial_backoff_seconds {
        let why = "must be greater than or equal to PodInitialBackoffSeconds";
        errors.invalid(&FieldPath::new("podMaxBackoffSeconds"), file.pod_max_backoff_seconds, why);
    }
    extenders(&file.extenders, &mut errors);
    match errors.0.as_slice() {
        [] => Ok(()),
        [one] => Err(ConfigurationError::Invalid(one.clone())),
        many => Err(ConfigurationError::Invalid(format!("[{}]", many.join(", ")))),
    }
}

fn leader_election(file: &KubeSchedulerConfiguration, errors: &mut Errors) {
    let (leader, path) = (&file.leader_election, FieldPath::new("leaderElection"));
    for (field, text) in leader.durations().filter(|(_, text)| duration(text).is_none()) {
        errors.invalid(&path.child(field), text, "must be a duration");
    }
    let lock = leader.resource_lock.as_deref().unwrap_or("leases");
    if leader.leader_elect != Some(false) && lock != "leases" {
        errors.invalid(&path.child("resourceLock"), lock, "resourceLock value must be \"leases\"");
    }
}

fn percentage(path: &FieldPath, value: Option<i32>, errors: &mut Errors) {
    if let Some(value) = value.filter(|value| !(0..=100).contains(value)) {
        errors.invalid(path, value, "not in valid range [0-100]");
    }
}

fn profiles(file: &KubeSchedulerConfiguration, errors: &mut Errors) -> Result<(), ConfigurationError> {
    let all = FieldPath::new("profiles");
    if file.profiles.is_empty() {
        errors.add(&FieldError::required(&all, ""));
    }
    for (index, profile) in file.profiles.iter().enumerate() {
        let path = all.index(index);
        if profile.scheduler_name.is_empty() {
            errors.add(&FieldError::required(&path.child("schedulerName"), ""));
        }
        percentage(&path.child("percentageOfNodesToScore"), profile.percentage_of_nodes_to_score, errors);
        plugin_config(&path, profile, errors)?;
        let before = file.profiles[..index].iter().position(|other| other.scheduler_name == profile.scheduler_name);
        if let Some(before) = before {
            let value = all.index(before).child("schedulerName").to_string();
            errors.add(&FieldError::duplicate(&path.child("schedulerName"), &value.into()));
        }
        if profile.plugins.queue_sort != file.profiles[0].plugins.queue_sort {
            let names: Vec<&str> =
                profile.plugins.queue_sort.enabled.iter().map(|plugin| plugin.name.as_str()).collect();
            errors.invalid(
                &path.child("plugins").child("queueSort"),
                json!(names),
                "must be the same for all profiles",
            );
        }
    }
    let sorters = file.profiles.first().map_or(0, |profile| profile.plugins.queue_sort.enabled.len());
    if sorters > 1 {
        let path = all.index(0).child("plugins").child("queueSort").child("Enabled");
        errors.invalid(&path, sorters, "only one queue sort plugin can be enabled");
    }
    Ok(())
}

fn plugin_config(
    path: &FieldPath,
    profile: &ProfileConfiguration,
    errors: &mut Errors,
) -> Result<(), ConfigurationError> {
    let mut seen = HashSet::new();
    for (index, config) in profile.plugin_config.iter().enumerate() {
        let path = path.child("pluginConfig").index(index);
        if !seen.insert(&config.name) {
            errors.add(&FieldError::duplicate(&path, &json!(config.name)));
        }
        if GONE_PLUGINS.contains(&config.name.as_str()) {
            let version = super::API_VERSION;
            let why = format!("was invalid in version {version:?} (KubeSchedulerConfiguration is version {version:?})");
            errors.invalid(&path, config.name.clone(), &why);
        }
        let args = path.child("args");
        arguments(&args, &config.name, profile, errors).map_err(ConfigurationError::Undecodable)?;
    }
    Ok(())
}

fn arguments(
    path: &FieldPath,
    plugin: &str,
    profile: &ProfileConfiguration,
    errors: &mut Errors,
) -> Result<(), serde_json::Error> {
    match plugin {
        "DefaultPreemption" => preemption(path, &profile.arguments(plugin)?, errors),
        "InterPodAffinity" => {
            let args: InterPodAffinityArgs = profile.arguments(plugin)?;
            if !(0..=100).contains(&args.hard_pod_affinity_weight) {
                let path = path.child("hardPodAffinityWeight");
                errors.invalid(&path, args.hard_pod_affinity_weight, "not in valid range [0, 100]");
            }
        }
        "NodeAffinity" => drop(profile.arguments::<super::NodeAffinityArgs>(plugin)?),
        "NodeResourcesBalancedAllocation" => balanced(path, &profile.arguments(plugin)?, errors),
        "NodeResourcesFit" => fit(path, &profile.arguments(plugin)?, errors),
        "PodTopologySpread" => spread(path, &profile.arguments(plugin)?, errors),
        "VolumeBinding" => {
            let args: VolumeBindingArgs = profile.arguments(plugin)?;
            if args.bind_timeout_seconds < 0 {
                let why = "invalid BindTimeoutSeconds, should not be a negative value";
                errors.invalid(&path.child("bindTimeoutSeconds"), args.bind_timeout_seconds, why);
            }
            if args.shape.is_some() {
                let why = "unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring";
                errors.invalid(&path.child("shape"), json!([]), why);
            }
        }
        _ => {}
    }
    Ok(())
}

fn preemption(path: &FieldPath, args: &DefaultPreemptionArgs, errors: &mut Errors) {
    let (percentage, absolute) = (args.min_candidate_nodes_percentage, args.min_candidate_nodes_absolute);
    let (of_percentage, of_absolute) =
        (path.child("minCandidateNodesPercentage"), path.child("minCandidateNodesAbsolute"));
    if !(0..=100).contains(&percentage) {
        errors.invalid(&of_percentage, percentage, "not in valid range [0, 100]");
    }
    if absolute < 0 {
        errors.invalid(&of_absolute, absolute, "not in valid range [0, inf)");
    }
    if percentage == 0 && absolute == 0 {
        errors.invalid(&of_percentage, 0, "cannot be zero at the same time as minCandidateNodesAbsolute");
        errors.invalid(&of_absolute, 0, "cannot be zero at the same time as minCandidateNodesPercentage");
    }
}

fn balanced(path: &FieldPath, args: &BalancedAllocationArgs, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, resource) in args.resources.iter().enumerate() {
        let path = path.child("resources").index(index);
        if !seen.insert(&resource.name) {
            errors.add(&FieldError::duplicate(&path.child("name"), &json!(resource.name)));
        }
        if resource.weight != 1 {
            errors.invalid(&path.child("weight"), resource.weight, "must be 1");
        }
    }
}

fn fit(path: &FieldPath, args: &FitArgs, errors: &mut Errors) {
    for (index, group) in args.ignored_resource_groups.iter().enumerate().filter(|(_, group)| group.contains('/')) {
        let path = path.child("ignoredResourceGroups").index(index);
        errors.invalid(&path, group.clone(), "resource group name can't contain '/'");
    }
    let (strategy, path) = (&args.scoring_strategy, path.child("scoringStrategy"));
    let known = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"];
    if !known.contains(&strategy.kind.as_str()) {
        errors.add(&FieldError::not_supported(&path.child("type"), &json!(strategy.kind), &known));
    }
    resources(&path.child("resources"), &strategy.resources, errors);
    let ratio_path = path.child("requestedToCapacityRatio");
    match (&strategy.requested_to_capacity_ratio, strategy.kind == "RequestedToCapacityRatio") {
        (None, true) => {
            errors.add(&FieldError::required(&ratio_path, "must be specified when type is RequestedToCapacityRatio"));
        }
        (Some(_), false) => {
            errors.add(&FieldError::forbidden(&ratio_path, "must be nil when type is not RequestedToCapacityRatio"));
        }
        (Some(ratio), true) => shape(&ratio_path.child("shape"), &ratio.shape, errors),
        (None, false) => {}
    }
}

fn resources(path: &FieldPath, resources: &[ResourceSpec], errors: &mut Errors) {
    for (index, resource) in resources.iter().enumerate().filter(|(_, one)| !(1..=100).contains(&one.weight)) {
        let why = format!("resource weight of {} not in valid range (0, 100]", resource.name);
        errors.invalid(&path.index(index).child("weight"), resource.weight, &why);
    }
}

fn shape(path: &FieldPath, shape: &[UtilizationShapePoint], errors: &mut Errors) {
    if shape.is_empty() {
        return errors.add(&FieldError::required(path, "at least one point must be specified"));
    }
    if let Some(at) = (1..shape.len()).find(|at| shape[at - 1].utilization >= shape[*at].utilization) {
        let path = path.index(at).child("utilization");
        errors.invalid(&path, shape[at].utilization, "values must be sorted in increasing order");
    }
    for (index, point) in shape.iter().enumerate() {
        if !(0..=100).contains(&point.utilization) {
            let path = path.index(index).child("utilization");
            errors.invalid(&path, point.utilization, "not in valid range [0, 100]");
        }
        if !(0..=10).contains(&point.score) {
            errors.invalid(&path.index(index).child("score"), point.score, "not in valid range [0, 10]");
        }
    }
}

fn spread(path: &FieldPath, args: &SpreadArgs, errors: &mut Errors) {
    let of_type = path.child("defaultingType");
    if !["System", "List"].contains(&args.defaulting_type.as_str()) {
        let known = ["System", "List"];
        errors.add(&FieldError::not_supported_in_order(&of_type, &json!(args.defaulting_type), &known));
    } else if args.defaulting_type == "System" && !args.default_constraints.is_empty() {
        errors.invalid(&of_type, "System", "when .defaultConstraints are not empty");
    }
    for (index, constraint) in args.default_constraints.iter().enumerate() {
        let path = path.child("defaultConstraints").index(index);
        if constraint.max_skew <= 0 {
            errors.invalid(&path.child("maxSkew"), constraint.max_skew, "not in valid range (0, inf)");
        }
        if constraint.topology_key.is_empty() {
            errors.add(&FieldError::required(&path.child("topologyKey"), "can not be empty"));
        }
        let when = constraint.when_unsatisfiable.as_str();
        let known = ["DoNotSchedule", "ScheduleAnyway"];
        if when.is_empty() {
            errors.add(&FieldError::required(&path.child("whenUnsatisfiable"), "can not be empty"));
        } else if !known.contains(&when) {
            errors.add(&FieldError::not_supported(&path.child("whenUnsatisfiable"), &json!(when), &known));
        }
        if constraint.label_selector.is_some() {
            let why = "constraint must not define a selector, as they deduced for each pod";
            errors.add(&FieldError::forbidden(&path.child("labelSelector"), why));
        }
        let pair = (&constraint.topology_key, when);
        let mut before = args.default_constraints[..index].iter();
        if before.any(|other| (&other.topology_key, other.when_unsatisfiable.as_str()) == pair) {
            errors.add(&FieldError::duplicate(&path, &json!(format!("{{{}, {}}}", pair.0, pair.1))));
        }
    }
}

fn extenders(extenders: &[ExtenderConfiguration], errors: &mut Errors) {
    let all = FieldPath::new("extenders");
    let mut managed = HashSet::new();
    for (index, extender) in extenders.iter().enumerate() {
        let path = all.index(index);
        if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
            errors.invalid(&path.child("weight"), extender.weight, "must have a positive weight applied to it");
        }
        if let Some(text) = extender.http_timeout.as_deref().filter(|text| duration(text).is_none()) {
            errors.invalid(&path.child("httpTimeout"), text, "must be a duration");
        }
        for (at, resource) in extender.managed_resources.iter().enumerate() {
            let path = path.child("managedResources").index(at).child("name");
            if !is_extended(&resource.name) {
                errors.invalid(&path, resource.name.clone(), "is an invalid extended resource name");
            }
            if !managed.insert(&resource.name) {
                errors.invalid(&path, resource.name.clone(), "duplicate extender managed resource name");
            }
        }
    }
    let binders = extenders.iter().filter(|extender| !extender.bind_verb.is_empty()).count();
    if binders > 1 {
        let value = format!("found {binders} extenders implementing bind");
        errors.invalid(&all, value, "only one extender can implement bind");
    }
}

fn is_extended(name: &str) -> bool {
    let is_native = !name.contains('/') || name.contains("kubernetes.io/");
    is_qualified_name(name) && !is_native && !name.starts_with("requests.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_upstreams_words() {
        let args =
            |plugin: &str, args: &str| format!("profiles: [{{pluginConfig: [{{name: {plugin}, args: {args}}}]}}]");
        let cases = [
            (
                "parallelism: 0".to_owned(),
                "parallelism: Invalid value: 0: should be an integer value greater than zero",
            ),
            ("profiles: []".to_owned(), "profiles: Required value"),
            (
                "percentageOfNodesToScore: 101".to_owned(),
                "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
            ),
            (
                "profiles: [{}, {}]".to_owned(),
                "profiles[1].schedulerName: Duplicate value: \"profiles[0].schedulerName\"",
            ),
            (
                "podMaxBackoffSeconds: 0".to_owned(),
                "podMaxBackoffSeconds: Invalid value: 0: must be greater than or equal to PodInitialBackoffSeconds",
            ),
            (
                "leaderElection: {resourceLock: endpoints}".to_owned(),
                "leaderElection.resourceLock: Invalid value: \"endpoints\": resourceLock value must be \"leases\"",
            ),
            (
                "extenders: [{prioritizeVerb: p}]".to_owned(),
                "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
            ),
            (
                "extenders: [{bindVerb: b}, {bindVerb: b}]".to_owned(),
                "extenders: Invalid value: \"found 2 extenders implementing bind\": only one extender can implement bind",
            ),
            (
                "extenders: [{managedResources: [{name: cpu}]}]".to_owned(),
                "extenders[0].managedResources[0].name: Invalid value: \"cpu\": is an invalid extended resource name",
            ),
            (
                args("InterPodAffinity", "{hardPodAffinityWeight: 101}"),
                "profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
            ),
            (
                args("NodeResourcesFit", "{scoringStrategy: {type: Best}}"),
                "profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: \"Best\": supported values: \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\"",
            ),
            (
                args(
                    "NodeResourcesFit",
                    "{scoringStrategy: {type: RequestedToCapacityRatio, requestedToCapacityRatio: {shape: [{utilization: 5}, {utilization: 5}]}}}",
                ),
                "profiles[0].pluginConfig[0].args.scoringStrategy.requestedToCapacityRatio.shape[1].utilization: Invalid value: 5: values must be sorted in increasing order",
            ),
            (
                args(
                    "PodTopologySpread",
                    "{defaultConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}]}",
                ),
                "profiles[0].pluginConfig[0].args.defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty",
            ),
            (
                args("NodeResourcesBalancedAllocation", "{resources: [{name: cpu, weight: 2}]}"),
                "profiles[0].pluginConfig[0].args.resources[0].weight: Invalid value: 2: must be 1",
            ),
            (
                args("VolumeBinding", "{bindTimeoutSeconds: -1}"),
                "profiles[0].pluginConfig[0].args.bindTimeoutSeconds: Invalid value: -1: invalid BindTimeoutSeconds, should not be a negative value",
            ),
            (
                "profiles: [{plugins: {filter: {enabled: [{name: Nonsense}]}}}]".to_owned(),
                "FilterPlugin \"Nonsense\" does not exist",
            ),
            (
                "profiles: [{plugins: {score: {enabled: [{name: NodeName}]}}}]".to_owned(),
                "plugin \"NodeName\" does not extend ScorePlugin plugin",
            ),
            (
                "profiles: [{plugins: {multiPoint: {disabled: [{name: '*'}]}}}]".to_owned(),
                "only one queue sort plugin required for profile with scheduler name \"default-scheduler\", but got 0",
            ),
        ];
        for (body, expected) in cases {
            let text = format!("apiVersion: {}\nkind: {}\n{body}\n", super::super::API_VERSION, super::super::KIND);
            let error = KubeSchedulerConfiguration::from_yaml(&text).expect_err(&body);
            assert_eq!(error.to_string(), expected, "{body}");
        }
    }
}
