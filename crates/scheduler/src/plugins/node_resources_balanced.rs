//! NodeResourcesBalancedAllocation: nodes whose resources would be used more evenly with the pod than without are liked
//! more.

use crate::configuration::BalancedAllocationArgs;
use crate::event::Event;
use crate::framework::{Cycle, Evaluation, MAX_SCORE, Plugin};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::resources::Resources;

#[derive(Default)]
pub(crate) struct NodeResourcesBalancedAllocation(BalancedAllocationArgs);

impl NodeResourcesBalancedAllocation {
    pub(crate) fn new(args: BalancedAllocationArgs) -> Self {
        Self(args)
    }
}

struct Asked<'a> {
    requests: &'a Resources,
    resources: Vec<&'a str>,
}

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let requests = &cycle.pod.requests;
        let is_core = |name: &str| matches!(name, "cpu" | "memory" | "ephemeral-storage");
        let names = self.0.resources.iter().map(|resource| resource.name.as_str());
        let resources: Vec<&str> = names.filter(|name| is_core(name) || requests.amount(name) > 0).collect();
        // A pod that asks for nothing cannot unbalance anything.
        let asks = resources.iter().any(|name| requests.amount(name) > 0);
        asks.then(|| Box::new(Asked { requests, resources }) as Box<dyn Evaluation + 'a>)
    }

    fn may_help(&self, _pod: &PodInfo, _event: &Event<'_>) -> bool {
        false
    }
}

impl Asked<'_> {
    /// How evenly the node is used, out of 100, with so much of the pod's requests added.
    fn evenness(&self, node: &NodeInfo, times: i64) -> i64 {
        let mut fractions = Vec::with_capacity(self.resources.len());
        for name in &self.resources {
            let have = node.allocatable.amount(name);
            if have != 0 {
                let used = node.requested.amount(name) + times * self.requests.amount(name);
                fractions.push((used as f64 / have as f64).min(1.0));
            }
        }
        let deviation = match fractions.as_slice() {
            [] | [_] => 0.0,
            [one, other] => ((one - other) / 2.0).abs(),
            many => {
                let mean = many.iter().sum::<f64>() / many.len() as f64;
                (many.iter().map(|fraction| (fraction - mean).powi(2)).sum::<f64>() / many.len() as f64).sqrt()
            }
        };
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    }
}

impl Evaluation for Asked<'_> {
    fn score(&self, node: &NodeInfo) -> Option<i64> {
        let gain = self.evenness(node, 1) - self.evenness(node, 0);
        Some(MAX_SCORE / 2 + (MAX_SCORE / 2 + gain) / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{node, pod, score};
    use serde_json::json;

    fn asking(cpu: &str, memory: &str) -> PodInfo {
        pod(json!({"metadata": {"name": format!("{cpu}-{memory}")}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}}))
    }

    fn scores(args: serde_json::Value, new: &PodInfo) -> Vec<i64> {
        let have = json!({"status": {"allocatable": {"cpu": "10", "memory": "10", "ephemeral-storage": "10"}}});
        let nodes = [vec![], vec![asking("0", "5")], vec![asking("5", "0")]].map(|pods| node(have.clone(), pods));
        score(&NodeResourcesBalancedAllocation::new(serde_json::from_value(args).unwrap()), new, &nodes)
    }

    #[test]
    fn a_pod_evens_out_what_is_uneven() {
        // The node on which much memory is used gets a pod that asks for CPU only: 75 and half of what it gains.
        assert_eq!(scores(json!({}), &asking("5", "0")), [62, 87, 62]);
        assert_eq!(scores(json!({}), &asking("5", "5")), [75, 75, 75]);
        assert_eq!(scores(json!({}), &asking("0", "0")), [0; 0], "it has no opinion");
        let only_cpu = json!({"resources": [{"name": "cpu", "weight": 1}]});
        assert_eq!(scores(only_cpu, &asking("5", "0")), [75, 75, 75]);
        let three = json!({"resources": [{"name": "cpu"}, {"name": "memory"}, {"name": "ephemeral-storage"}]});
        assert_eq!(scores(three, &asking("5", "0")), [63, 75, 63]);
    }
}
