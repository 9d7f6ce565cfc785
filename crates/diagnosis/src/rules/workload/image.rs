//! E21: an image cannot be pulled.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::object::text;
use crate::rules::workload::by_container;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "E21", title: "an image cannot be pulled", layer: Layer::Workload, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let holds = |status: &Value| {
        matches!(
            text(&status["state"]["waiting"]["reason"]),
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull"
        )
    };
    by_container(evidence, holds, |subject, status| {
        let container = text(&status["name"]);
        let (namespace, name) = (&subject.namespace, &subject.name);
        let repair = Repair::of(&[("See the runtime's words", &format!("kubectl -n {namespace} describe pod {name}"))]);
        (format!("container {container} of {subject}: {}", text(&status["state"]["waiting"]["message"])), repair)
    })
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
