//! E21: an image cannot be pulled.
//!
//! Kedge's own images are made on each machine by its upgrade, so that a pod of the new version waits on a machine whose turn
//! has not come. In the middle of an upgrade that is no trouble; where it lasts, somebody forgot a machine.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::object::{is_older_than, text};
use crate::rules::workload::by_container;
use crate::rules::{Layer, Rule};

/// So long the machines of a cluster may take their turns, in seconds.
const UPGRADE: i64 = 3600;

/// What the images that are made on machines are called, before the version.
const MADE_HERE: &str = "localhost/kedge:";

pub(super) const RULE: Rule =
    Rule { id: "E21", title: "an image cannot be pulled", layer: Layer::Workload, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let fails = |_: &Value, status: &Value| {
        matches!(
            text(&status["state"]["waiting"]["reason"]),
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull"
        )
    };
    let waits = |pod: &Value, status: &Value| fails(pod, status) && waits_for_upgrade(evidence, pod, status);
    let for_long = |pod: &Value| is_older_than(pod, UPGRADE, evidence.gathered);
    let mut found = by_container(
        evidence,
        |pod, status| fails(pod, status) && !waits(pod, status),
        |subject, status| {
            let container = text(&status["name"]);
            let (namespace, name) = (&subject.namespace, &subject.name);
            let describe = format!("kubectl -n {namespace} describe pod {name}");
            let repair = Repair::of(&[("See the runtime's words", &describe)]);
            (format!("container {container} of {subject}: {}", text(&status["state"]["waiting"]["message"])), repair)
        },
    );
    let forgotten = by_container(
        evidence,
        |pod, status| waits(pod, status) && for_long(pod),
        |subject, status| {
            let repair = Repair::of(&[("Upgrade the machine, which makes the image, on it", "kedge upgrade node")]);
            (format!("{subject} waits for {}: its machine is still to be upgraded", text(&status["image"])), repair)
        },
    );
    found.extend(forgotten.into_iter().map(Finding::warning));
    found
}

/// Whether a pod is of another version of Kedge than its node, and of one that some node has.
fn waits_for_upgrade(evidence: &Evidence, pod: &Value, status: &Value) -> bool {
    let Some(wanted) = text(&status["image"]).strip_prefix(MADE_HERE) else { return false };
    let mut others = false;
    for (_, _, node) in evidence.objects("Node") {
        let is_wanted = text(&node["status"]["nodeInfo"]["kubeletVersion"]).replace('+', "_") == wanted;
        if node["metadata"]["name"] == pod["spec"]["nodeName"] && is_wanted {
            return false;
        }
        others |= is_wanted;
    }
    others
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_image_that_is_not_there_is_found() {
        let status = |reason: &str| {
            pod(
                "a",
                "web",
                json!({"nodeName": "one"}),
                json!({"phase": "Pending", "containerStatuses": [
            {"name": "c", "state": {"waiting": {"reason": reason, "message": "Back-off pulling image \"x:1\""}}}]}),
            )
        };
        assert_eq!(
            found(&RULE, [status("ImagePullBackOff")]),
            ["container c of Pod a/web: Back-off pulling image \"x:1\""]
        );
        assert_eq!(found(&RULE, [status("ContainerCreating")]), [""; 0]);
    }

    #[test]
    fn a_machine_whose_turn_has_not_come_has_no_image_of_the_new_version() {
        let machine = |name: &str, version: &str| {
            let mut node = node(name, json!([]));
            node["status"]["nodeInfo"] = json!({"kubeletVersion": version});
            node
        };
        let image = "localhost/kedge:v1.36.0_kedge-0.2.0";
        let waiting = json!({"phase": "Pending", "containerStatuses": [{"name": "c", "image": image,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}]});
        let mut fresh = pod("kube-system", "coredns-1", json!({"nodeName": "two"}), waiting);
        fresh["metadata"]["creationTimestamp"] = json!(now().to_string());
        let with = |pod: &Value, first: &str, second: &str| {
            found(&RULE, [machine("one", first), machine("two", second), pod.clone()])
        };
        let (new, before) = ("v1.36.0+kedge-0.2.0", "v1.36.0+kedge-0.1.0");
        assert_eq!(with(&fresh, new, before), [""; 0]);
        let told = "Pod kube-system/coredns-1 waits for localhost/kedge:v1.36.0_kedge-0.2.0: its machine is still to be upgraded";
        assert_eq!(with(&old(fresh.clone()), new, before), [told]);
        // A machine that is new lost its image, and a version that no machine has comes from nowhere.
        for (first, second) in [(new, new), (before, before)] {
            assert_eq!(
                with(&fresh, first, second),
                ["container c of Pod kube-system/coredns-1: Back-off pulling image"]
            );
        }
    }
}
