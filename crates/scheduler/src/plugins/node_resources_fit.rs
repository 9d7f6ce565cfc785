//! NodeResourcesFit: what a pod asks for must be free; nodes with more left are liked more (LeastAllocated).

use crate::framework::{Cycle, Evaluation, MAX_SCORE, Plugin, Verdict};
use crate::node_info::{NodeInfo, PodInfo};

pub(crate) struct NodeResourcesFit;

struct Asked<'a>(&'a PodInfo);

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn prepare<'a>(&self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        Some(Box::new(Asked(cycle.pod)))
    }
}

impl Evaluation for Asked<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let (asked, used, have) = (&self.0.requests, &node.requested, &node.allocatable);
        let mut lacking = Vec::new();
        if used.pods + 1 > have.pods {
            lacking.push("Too many pods".to_owned());
        }
        for (name, asked, used, have) in [
            ("cpu", asked.milli_cpu, used.milli_cpu, have.milli_cpu),
            ("memory", asked.memory, used.memory, have.memory),
            ("ephemeral-storage", asked.ephemeral_storage, used.ephemeral_storage, have.ephemeral_storage),
        ] {
            if asked > 0 && asked > have - used {
                lacking.push(format!("Insufficient {name}"));
            }
        }
        for (name, amount) in asked.extended.iter().filter(|(_, amount)| **amount > 0) {
            let free = have.extended.get(name).copied().unwrap_or_default()
                - used.extended.get(name).copied().unwrap_or_default();
            if *amount > free {
                lacking.push(format!("Insufficient {name}"));
            }
        }
        if lacking.is_empty() { Verdict::Fits } else { Verdict::Unschedulable(lacking) }
    }

    fn score(&self, node: &NodeInfo) -> Option<i64> {
        let (asked, used, have) = (&self.0.score_requests, &node.score_requested, &node.allocatable);
        let free = |asked: i64, used: i64, have: i64| match have {
            0 => 0,
            have => ((have - used - asked).max(0)) * MAX_SCORE / have,
        };
        let cpu = free(asked.milli_cpu, used.milli_cpu, have.milli_cpu);
        let memory = free(asked.memory, used.memory, have.memory);
        Some((cpu + memory) / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{filter, node, pod, score};
    use serde_json::json;

    fn asking(name: &str, cpu: &str, memory: &str) -> PodInfo {
        pod(json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}}))
    }

    #[test]
    fn what_lacks_is_named() {
        let allocatable = json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2"}}});
        let nodes = [node(allocatable.clone(), vec![asking("a", "600m", "512Mi")])];
        for (cpu, memory, reasons) in [
            ("400m", "512Mi", vec![]),
            ("401m", "512Mi", vec!["Insufficient cpu"]),
            ("500m", "1Gi", vec!["Insufficient cpu", "Insufficient memory"]),
            ("0", "0", vec![]),
        ] {
            let verdict = filter(&NodeResourcesFit, &asking("new", cpu, memory), &nodes).remove(0);
            assert_eq!(verdict.reasons(), reasons, "{cpu} {memory}");
        }
        let full = [node(allocatable, vec![asking("a", "0", "0"), asking("b", "0", "0")])];
        assert_eq!(filter(&NodeResourcesFit, &asking("c", "0", "0"), &full)[0].reasons(), ["Too many pods"]);
    }

    #[test]
    fn the_emptier_node_is_liked_more() {
        let allocatable = json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "9"}}});
        let nodes = [node(allocatable.clone(), vec![asking("a", "500m", "512Mi")]), node(allocatable, vec![])];
        let scores = score(&NodeResourcesFit, &asking("new", "250m", "256Mi"), &nodes);
        assert_eq!(scores, [25, 75]);
    }
}
