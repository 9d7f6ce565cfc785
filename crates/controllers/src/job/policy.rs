//! What a Job's failure and success policies make of pods.
//!
//! Pure.

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
    SuccessPolicyRule,
};
use k8s_openapi::api::core::v1::Pod;

use super::indexes::{Indexes, parse};
use crate::pods::{name_of, phase};

/// What a failed pod means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It counts against the limits.
    Count,
    /// It does not.
    Ignore,
    /// The Job has failed, for this reason.
    FailJob(String),
    /// The pod's index has failed.
    FailIndex,
}

/// The first rule that matches decides.
pub(crate) fn meaning(spec: &JobSpec, pod: &Pod) -> Meaning {
    let Some((index, rule, (before, after))) = first_match(spec, pod) else { return Meaning::Count };
    match rule.action.as_str() {
        "Ignore" => Meaning::Ignore,
        "FailJob" => {
            let (namespace, name) = (pod.metadata.namespace.as_deref().unwrap_or_default(), name_of(&pod.metadata));
            let text = format!("{before} pod {namespace}/{name}{after} matching FailJob rule at index {index}");
            Meaning::FailJob(capitalize(&text))
        }
        "FailIndex" if spec.backoff_limit_per_index.is_some() => Meaning::FailIndex,
        _ => Meaning::Count,
    }
}

/// The rule of the failure policy that is about a failed pod.
pub(crate) fn matching_rule<'a>(spec: &'a JobSpec, pod: &Pod) -> Option<&'a PodFailurePolicyRule> {
    first_match(spec, pod).map(|(_, rule, _)| rule)
}

/// The first rule that matches, its index, and what about the pod it matches.
fn first_match<'a>(spec: &'a JobSpec, pod: &Pod) -> Option<(usize, &'a PodFailurePolicyRule, Around)> {
    if phase(pod) != "Failed" {
        return None;
    }
    let mut rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules).enumerate();
    rules.find_map(|(index, rule)| {
        let by_code = rule.on_exit_codes.as_ref().and_then(|codes| matching_exit_code(pod, codes));
        let by_condition = || rule.on_pod_conditions.as_ref().and_then(|patterns| matching_condition(pod, patterns));
        Some((index, rule, by_code.or_else(by_condition)?))
    })
}

fn capitalize(text: &str) -> String {
    let text = text.trim_start();
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// The words around the pod's name in the text that explains the match.
type Around = (String, String);

fn matching_exit_code(pod: &Pod, wanted: &PodFailurePolicyOnExitCodesRequirement) -> Option<Around> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let all = containers.chain(status.init_container_statuses.iter().flatten());
    for container in all {
        if wanted.container_name.as_ref().is_some_and(|name| *name != container.name) {
            continue;
        }
        let terminated = container.state.as_ref().and_then(|state| state.terminated.as_ref());
        let Some(code) = terminated.map(|terminated| terminated.exit_code).filter(|code| *code != 0) else { continue };
        let is_listed = wanted.values.contains(&code);
        if wanted.operator == "In" && is_listed || wanted.operator == "NotIn" && !is_listed {
            return Some((format!("Container {} for", container.name), format!(" failed with exit code {code}")));
        }
    }
    None
}

fn matching_condition(pod: &Pod, patterns: &[PodFailurePolicyOnPodConditionsPattern]) -> Option<Around> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let matches = |pattern: &&PodFailurePolicyOnPodConditionsPattern| {
        let status = pattern.status.as_deref().unwrap_or("True");
        conditions.iter().any(|condition| condition.type_ == pattern.type_ && condition.status == status)
    };
    let pattern = patterns.iter().find(matches)?;
    Some((String::new(), format!(" has condition {}", pattern.type_)))
}

/// The first success rule that the succeeded indexes meet, as the text that says so.
pub(crate) fn met_success_rule(spec: &JobSpec, succeeded: &Indexes) -> Option<String> {
    let completions = spec.completions.unwrap_or_default();
    let meets = |rule: &SuccessPolicyRule| match (&rule.succeeded_indexes, rule.succeeded_count) {
        (Some(indexes), count) => {
            let wanted = parse(indexes, completions);
            let met = wanted.intersection(succeeded).count();
            met >= count.and_then(|count| usize::try_from(count).ok()).unwrap_or(wanted.len())
        }
        (None, Some(count)) => succeeded.len() >= usize::try_from(count).unwrap_or_default(),
        (None, None) => false,
    };
    let rules = &spec.success_policy.as_ref()?.rules;
    rules.iter().position(meets).map(|index| format!("Matched rules at index {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::{pod, with_phase};
    use k8s_openapi::api::batch::v1::{PodFailurePolicy, SuccessPolicy};
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, PodCondition};

    fn exited(code: i32) -> Pod {
        let mut pod = with_phase(pod("a"), "Failed");
        let terminated = ContainerStateTerminated { exit_code: code, ..ContainerStateTerminated::default() };
        pod.status.get_or_insert_default().container_statuses = Some(vec![ContainerStatus {
            name: "main".to_owned(),
            state: Some(ContainerState { terminated: Some(terminated), ..ContainerState::default() }),
            ..ContainerStatus::default()
        }]);
        pod
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let code = |action: &str, operator: &str, values: &[i32]| PodFailurePolicyRule {
            action: action.to_owned(),
            on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                operator: operator.to_owned(),
                values: values.to_vec(),
                ..PodFailurePolicyOnExitCodesRequirement::default()
            }),
            ..PodFailurePolicyRule::default()
        };
        let disrupted = PodFailurePolicyRule {
            action: "Ignore".to_owned(),
            on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                type_: "DisruptionTarget".to_owned(),
                status: None,
            }]),
            ..PodFailurePolicyRule::default()
        };
        let rules = vec![code("FailJob", "In", &[42]), disrupted, code("FailIndex", "In", &[43])];
        let spec = JobSpec { pod_failure_policy: Some(PodFailurePolicy { rules }), ..JobSpec::default() };
        let text = "Container main for pod default/a failed with exit code 42 matching FailJob rule at index 0";
        assert_eq!(meaning(&spec, &exited(42)), Meaning::FailJob(text.to_owned()));
        assert_eq!(meaning(&spec, &exited(1)), Meaning::Count);
        assert_eq!(meaning(&spec, &exited(43)), Meaning::Count);
        let per_index = JobSpec { backoff_limit_per_index: Some(1), ..spec.clone() };
        assert_eq!(meaning(&per_index, &exited(43)), Meaning::FailIndex);
        let mut evicted = exited(1);
        evicted.status.get_or_insert_default().conditions = Some(vec![PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            ..PodCondition::default()
        }]);
        assert_eq!(meaning(&spec, &evicted), Meaning::Ignore);
    }

    #[test]
    fn success_rules_look_at_indexes_and_counts() {
        let check = |indexes: Option<&str>, count: Option<i32>, succeeded: &str, met: bool| {
            let rule = SuccessPolicyRule { succeeded_indexes: indexes.map(str::to_owned), succeeded_count: count };
            let spec = JobSpec {
                completions: Some(10),
                success_policy: Some(SuccessPolicy { rules: vec![rule] }),
                ..JobSpec::default()
            };
            let text = met_success_rule(&spec, &parse(succeeded, 10));
            assert_eq!(text.as_deref(), met.then_some("Matched rules at index 0"));
        };
        check(Some("0-1"), None, "0,1", true);
        check(Some("0-1"), None, "0,2", false);
        check(Some("0-3"), Some(2), "0,3", true);
        check(Some("0-3"), Some(2), "0,9", false);
        check(None, Some(2), "8,9", true);
    }
}
