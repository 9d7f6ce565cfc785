//! NodeResourcesBalancedAllocation: nodes on which CPU and memory would be used to the same degree are liked more.

use crate::framework::{Cycle, Evaluation, MAX_SCORE, Plugin};
use crate::node_info::{NodeInfo, PodInfo};

pub(crate) struct NodeResourcesBalancedAllocation;

struct Asked<'a>(&'a PodInfo);

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn prepare<'a>(&self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let requests = &cycle.pod.requests;
        // A pod that asks for nothing cannot unbalance anything.
        (requests.milli_cpu > 0 || requests.memory > 0).then(|| Box::new(Asked(cycle.pod)) as Box<dyn Evaluation>)
    }
}

impl Evaluation for Asked<'_> {
    fn score(&self, node: &NodeInfo) -> Option<i64> {
        let (asked, used, have) = (&self.0.requests, &node.requested, &node.allocatable);
        let fraction = |asked: i64, used: i64, have: i64| match have {
            0 => 1.0,
            have => ((used + asked) as f64 / have as f64).min(1.0),
        };
        let cpu = fraction(asked.milli_cpu, used.milli_cpu, have.milli_cpu);
        let memory = fraction(asked.memory, used.memory, have.memory);
        let deviation = (cpu - memory).abs() / 2.0;
        Some(((1.0 - deviation) * MAX_SCORE as f64) as i64)
    }
}
