//! W1: a container ends again and again by itself.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::object::text;
use crate::rules::workload::by_container;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "W1", title: "a container ends again and again", layer: Layer::Workload, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let holds = |_: &Value, status: &Value| text(&status["state"]["waiting"]["reason"]) == "CrashLoopBackOff";
    by_container(evidence, holds, |subject, status| {
        let container = text(&status["name"]);
        let (namespace, name) = (&subject.namespace, &subject.name);
        let repair = Repair::of(&[(
            "See its last words",
            &format!("kubectl -n {namespace} logs {name} -c {container} --previous"),
        )]);
        let last = &status["lastState"]["terminated"];
        // What never ran has no last words; the runtime has.
        let why = match text(&last["reason"]) {
            "StartError" | "ContainerCannotRun" => format!(": {}", text(&last["message"]).trim()),
            _ => String::new(),
        };
        (
            format!(
                "container {container} of {subject} ended {} times, last with {} (code {}){why}",
                status["restartCount"],
                text(&last["reason"]),
                last["exitCode"]
            ),
            repair,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_container_that_crashes_is_found_and_one_that_runs_is_not() {
        let status = |state: serde_json::Value| {
            pod(
                "a",
                "web",
                json!({"nodeName": "one"}),
                json!({"phase": "Running", "containerStatuses": [
            {"name": "c", "restartCount": 4, "state": state, "lastState": {"terminated": {"reason": "Error", "exitCode": 3}}}]}),
            )
        };
        assert_eq!(
            found(&RULE, [status(json!({"waiting": {"reason": "CrashLoopBackOff"}}))]),
            ["container c of Pod a/web ended 4 times, last with Error (code 3)"]
        );
        assert_eq!(found(&RULE, [status(json!({"running": {}}))]), [""; 0]);
    }
}
