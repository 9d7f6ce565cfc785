//! TaintToleration: taints that a pod does not tolerate keep it away (NoSchedule, NoExecute) or make a node less liked
//! (PreferNoSchedule).

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::event::{Event, other_taints};
use crate::framework::{Cycle, Evaluation, Plugin, Verdict, scale_to_max};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::selectors::tolerated;

pub(crate) struct TaintToleration;

struct Tolerance<'a>(&'a [Toleration]);

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        Some(Box::new(Tolerance(cycle.pod.pod().spec.as_ref()?.tolerations.as_deref().unwrap_or_default())))
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let tolerations = pod.pod().spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        event.changed_node(other_taints).is_some_and(|node| Tolerance(tolerations).filter(node).fits())
    }
}

fn taints(node: &NodeInfo) -> &[Taint] {
    // Most nodes have none, and what they are like otherwise need not be looked at.
    if !node.has_taints {
        return &[];
    }
    node.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

impl Evaluation for Tolerance<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        match taints(node).iter().filter(hard).find(|taint| !tolerated(taint, self.0)) {
            // 1.36 counts all of them together; older servers named each taint.
            Some(_) => Verdict::unresolvable("node(s) had untolerated taint(s)"),
            None => Verdict::Fits,
        }
    }

    fn score(&self, node: &NodeInfo) -> Option<i64> {
        let soft = taints(node).iter().filter(|taint| taint.effect == "PreferNoSchedule");
        i64::try_from(soft.filter(|taint| !tolerated(taint, self.0)).count()).ok()
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale_to_max(scores, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{filter, node, pod, score};
    use serde_json::json;

    #[test]
    fn hard_taints_exclude_and_soft_taints_are_avoided() {
        let tainted = |effect: &str| node(json!({"spec": {"taints": [{"key": "a", "effect": effect}]}}), vec![]);
        let nodes = [tainted("NoSchedule"), tainted("PreferNoSchedule"), node(json!({}), vec![])];
        let plain = pod(json!({"spec": {"containers": []}}));
        let verdicts = filter(&TaintToleration, &plain, &nodes);
        assert_eq!(verdicts[0].reasons(), ["node(s) had untolerated taint(s)"]);
        assert!(verdicts[1].fits() && verdicts[2].fits());
        assert_eq!(score(&TaintToleration, &plain, &nodes[1..]), [0, 100]);
    }
}
