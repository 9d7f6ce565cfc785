//! E21: an image cannot be pulled.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{container_statuses, is_leaving, subject, text};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "E21", title: "an image cannot be pulled", layer: Layer::Workload, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, pod) in evidence.objects("Pod").filter(|(_, _, pod)| !is_leaving(pod)) {
        let Some(status) = container_statuses(pod).find(|status| {
            matches!(
                text(&status["state"]["waiting"]["reason"]),
                "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull"
            )
        }) else {
            continue;
        };
        let (subject, container) = (subject(pod), text(&status["name"]));
        let (namespace, name) = (&subject.namespace, &subject.name);
        let repair = Repair::of(&[("See the runtime's words", &format!("kubectl -n {namespace} describe pod {name}"))]);
        let text = format!("container {container} of {subject}: {}", text(&status["state"]["waiting"]["message"]));
        let node = text_of_node(pod).to_owned();
        found.push(Finding::failure(subject, item, Certainty::Proven, text, vec![index], repair).on_node(&node));
    }
    found
}

fn text_of_node(pod: &serde_json::Value) -> &str {
    text(&pod["spec"]["nodeName"])
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
}
