//! Whether a container that ended is to be started again: restart policies of pods and containers, and restart rules.
//!
//! Pure. Source: KEP-753 (sidecars) and KEP-5307 (container restart rules).

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::runtime_state::{ContainerPhase, ContainerRecord, PodRuntime};
use crate::spec;

/// The policy that counts for one container.
pub(crate) fn effective_policy<'a>(pod: &'a Pod, container: &'a Container) -> &'a str {
    container.restart_policy.as_deref().unwrap_or_else(|| spec::restart_policy(pod))
}

/// Whether a container that ended with `exit_code` is started again while its pod lives.
pub(crate) fn restarts_after(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    if let Some(restarts) = rule_decision(container, exit_code) {
        return restarts;
    }
    match effective_policy(pod, container) {
        "Always" => true,
        "OnFailure" => exit_code != 0,
        _ => false,
    }
}

fn rule_decision(container: &Container, exit_code: i32) -> Option<bool> {
    for rule in container.restart_policy_rules.as_deref().unwrap_or_default() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.as_deref().unwrap_or_default().contains(&exit_code);
        let matches = match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if matches && rule.action == "Restart" {
            return Some(true);
        }
    }
    None
}

/// Whether a container that does not run is to be started.
pub(crate) fn should_start(pod: &Pod, container: &Container, record: Option<&ContainerRecord>) -> bool {
    let Some(record) = record else { return true };
    match record.phase {
        ContainerPhase::Running => false,
        // A container that was created but never started, or whose state was lost, is made anew.
        ContainerPhase::Created | ContainerPhase::Unknown => true,
        ContainerPhase::Exited => restarts_after(pod, container, record.exit_code),
    }
}

/// Whether any app container of the pod is started again after a failure.
pub(crate) fn restarts_on_failure(pod: &Pod) -> bool {
    spec::restart_policy(pod) != "Never"
}

/// Whether an app container was ever created in the present sandbox: from then on, init containers are not run again.
pub(crate) fn was_initialized(pod: &Pod, runtime: &PodRuntime) -> bool {
    spec::containers(pod).iter().any(|container| runtime.container_in_sandbox(&container.name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ContainerRestartRule, ContainerRestartRuleOnExitCodes, PodSpec};

    #[test]
    fn policies_and_rules() {
        let check = |pod_policy: &str, own: Option<&str>, rule: Option<(&str, i32)>, exit_code: i32, expected: bool| {
            let spec = PodSpec { restart_policy: Some(pod_policy.to_owned()), ..PodSpec::default() };
            let pod = Pod { spec: Some(spec), ..Pod::default() };
            let rules = rule.map(|(operator, value)| {
                let exit_codes =
                    ContainerRestartRuleOnExitCodes { operator: operator.to_owned(), values: Some(vec![value]) };
                vec![ContainerRestartRule { action: "Restart".to_owned(), exit_codes: Some(exit_codes) }]
            });
            let container = Container {
                restart_policy: own.map(str::to_owned),
                restart_policy_rules: rules,
                ..Container::default()
            };
            let got = restarts_after(&pod, &container, exit_code);
            assert_eq!(got, expected, "{pod_policy} {own:?} {rule:?} {exit_code}");
        };
        check("Always", None, None, 0, true);
        check("OnFailure", None, None, 0, false);
        check("OnFailure", None, None, 1, true);
        check("Never", None, None, 1, false);
        check("Never", Some("Always"), None, 0, true);
        check("Always", Some("Never"), None, 1, false);
        check("Never", None, Some(("In", 42)), 42, true);
        check("Never", None, Some(("In", 42)), 1, false);
        check("Never", None, Some(("NotIn", 42)), 1, true);
    }
}
