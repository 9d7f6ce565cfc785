//! NodeUnschedulable: cordoned nodes take only pods that tolerate it.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::event::{Event, other_cordon, other_taints};
use crate::framework::{Cycle, Evaluation, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::selectors::tolerated;

pub(crate) struct NodeUnschedulable;

struct Tolerance<'a>(&'a [Toleration]);

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let tolerations = cycle.pod.pod().spec.as_ref()?.tolerations.as_deref().unwrap_or_default();
        Some(Box::new(Tolerance(tolerations)))
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let tolerations = pod.pod().spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        let changed = event.changed_node(|old, new| other_cordon(old, new) || other_taints(old, new));
        changed.is_some_and(|node| Tolerance(tolerations).filter(node).fits())
    }
}

impl Evaluation for Tolerance<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        if !node.is_cordoned {
            return Verdict::Fits;
        }
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        match tolerated(&taint, self.0) {
            true => Verdict::Fits,
            false => Verdict::unresolvable("node(s) were unschedulable"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{filter, node, pod};
    use serde_json::json;

    #[test]
    fn a_cordoned_node_is_left_alone() {
        let nodes = [node(json!({"spec": {"unschedulable": true}}), vec![]), node(json!({"spec": {}}), vec![])];
        let plain = pod(json!({"spec": {"containers": []}}));
        let refusal = Verdict::unresolvable("node(s) were unschedulable");
        assert_eq!(filter(&NodeUnschedulable, &plain, &nodes), [refusal, Verdict::Fits]);
        let daemon = pod(json!({"spec": {"containers": [], "tolerations": [{"operator": "Exists"}]}}));
        assert_eq!(filter(&NodeUnschedulable, &daemon, &nodes), [Verdict::Fits, Verdict::Fits]);
    }
}
