//! NodeDeclaredFeatures: a pod that needs what only some kubelets can do runs where the node declares it (KEP-5328).

use k8s_openapi::api::core::v1::{Node, PodSpec};

use crate::event::{Event, other_features};
use crate::framework::{Cycle, Evaluation, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

const RESTART_ALL: &str = "RestartAllContainersOnContainerExits";
const USERS_OF_HOST_NETWORK: &str = "UserNamespacesHostNetworkSupport";

pub(crate) struct NodeDeclaredFeatures;

/// What the node must declare.
struct Needed(Vec<&'static str>);

/// The features that upstream infers from a pod.
pub(crate) fn needed_features(spec: &PodSpec) -> Vec<&'static str> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut rules = containers.flat_map(|container| container.restart_policy_rules.iter().flatten());
    let mut features = Vec::new();
    if rules.any(|rule| rule.action == "RestartAllContainers") {
        features.push(RESTART_ALL);
    }
    if spec.host_network == Some(true) && spec.host_users == Some(false) {
        features.push(USERS_OF_HOST_NETWORK);
    }
    features
}

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatures"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let features = needed_features(cycle.pod.pod().spec.as_ref()?);
        (!features.is_empty()).then(|| Box::new(Needed(features)) as Box<dyn Evaluation>)
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let Some(spec) = &pod.pod().spec else { return false };
        event.changed_node(other_features).is_some_and(|node| Needed(needed_features(spec)).are_declared(&node.node))
    }
}

impl Needed {
    fn are_declared(&self, node: &Node) -> bool {
        let declared = node.status.as_ref().and_then(|status| status.declared_features.as_deref()).unwrap_or_default();
        self.0.iter().all(|needed| declared.iter().any(|feature| feature == needed))
    }
}

impl Evaluation for Needed {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        match self.are_declared(&node.node) {
            true => Verdict::Fits,
            false => Verdict::unresolvable("node(s) didn't match Pod's required features"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{filter, node, pod};
    use serde_json::{Value, json};

    fn declaring(features: &[&str]) -> NodeInfo {
        node(json!({"metadata": {"name": "n"}, "status": {"declaredFeatures": features}}), vec![])
    }

    #[test]
    fn what_a_pod_needs_must_be_declared() {
        let nodes = [declaring(&[]), declaring(&[RESTART_ALL]), declaring(&[RESTART_ALL, USERS_OF_HOST_NETWORK])];
        let check = |spec: Value, fitting: [bool; 3]| {
            let verdicts = filter(&NodeDeclaredFeatures, &pod(json!({"spec": spec})), &nodes);
            assert_eq!(verdicts.iter().map(Verdict::fits).collect::<Vec<_>>(), fitting, "{spec}");
        };
        let rule = |action: &str| json!([{"name": "c", "restartPolicyRules": [{"action": action}]}]);
        check(json!({"containers": rule("Restart")}), [true, true, true]);
        check(json!({"containers": rule("RestartAllContainers")}), [false, true, true]);
        check(json!({"containers": [], "initContainers": rule("RestartAllContainers")}), [false, true, true]);
        check(json!({"containers": [], "hostNetwork": true}), [true, true, true]);
        check(
            json!({"containers": rule("RestartAllContainers"), "hostNetwork": true, "hostUsers": false}),
            [false, false, true],
        );
    }

    #[test]
    fn a_node_that_declares_more_may_help() {
        let waiting = pod(json!({"spec": {"containers": [
            {"name": "c", "restartPolicyRules": [{"action": "RestartAllContainers"}]}]}}));
        let (old, new) = (declaring(&[]), declaring(&[RESTART_ALL]));
        let helps = |old: &NodeInfo, new: &NodeInfo| {
            NodeDeclaredFeatures.may_help(&waiting, &Event::NodeUpdate { old: &old.node, new })
        };
        assert!(helps(&old, &new) && !helps(&new, &old) && !helps(&new, &new));
        assert!(NodeDeclaredFeatures.may_help(&waiting, &Event::NodeAdd(&new)));
    }
}
