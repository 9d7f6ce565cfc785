//! W2: a pod has a node, and its containers do not start.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{container_statuses, is_leaving, is_older_than, subject, text};
use crate::rules::{Layer, Rule};

const PATIENCE: i64 = 120;

pub(super) const RULE: Rule =
    Rule { id: "W2", title: "the containers of a pod do not start", layer: Layer::Workload, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, pod) in evidence.objects("Pod").filter(|(_, _, pod)| !is_leaving(pod)) {
        let node = text(&pod["spec"]["nodeName"]);
        let is_waiting = pod["status"]["phase"] == "Pending"
            && !node.is_empty()
            && container_statuses(pod).all(|status| {
                matches!(text(&status["state"]["waiting"]["reason"]), "ContainerCreating" | "PodInitializing" | "")
                    && !status["state"]["running"].is_object()
            });
        if !is_waiting || !is_older_than(pod, PATIENCE, evidence.gathered) {
            continue;
        }
        let subject = subject(pod);
        let describe = format!("kubectl -n {} describe pod {}", subject.namespace, subject.name);
        let repair = Repair::of(&[("See the events of its node agent", &describe)]);
        let text = format!("{subject} is on {node}, and none of its containers has started");
        found.push(Finding::failure(subject, item, Certainty::Possible, text, vec![index], repair).on_node(node));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_old_pod_without_containers_is_found_and_a_young_one_is_not() {
        let creating = json!({"phase": "Pending", "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]});
        let pod = pod("a", "web", json!({"nodeName": "one"}), creating);
        assert_eq!(found(&RULE, [old(pod.clone())]).len(), 1);
        assert_eq!(found(&RULE, [pod]), [""; 0]);
    }
}
