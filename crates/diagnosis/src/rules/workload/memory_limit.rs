//! W3: a container was ended for taking more memory than its limit.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::object::text;
use crate::rules::workload::by_container;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "W3",
    title: "a container takes more memory than it may",
    layer: Layer::Workload,
    explains: &[Explains { ids: &["W1"], scope: Scope::SameSubject }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let holds = |_: &Value, status: &Value| {
        text(&status["lastState"]["terminated"]["reason"]) == "OOMKilled" && status["ready"] != true
    };
    by_container(evidence, holds, |subject, status| {
        let container = text(&status["name"]);
        let (namespace, name) = (&subject.namespace, &subject.name);
        let repair = Repair::of(&[
            ("See what it takes", &format!("kubectl -n {namespace} top pod {name} --containers")),
            ("Raise its limit, or mend the leak", ""),
        ]);
        (format!("container {container} of {subject} was ended by the kernel at its limit of memory"), repair)
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_container_at_its_limit_is_found_and_one_that_recovered_is_not() {
        let status = |ready: bool| {
            pod(
                "a",
                "web",
                json!({"nodeName": "one"}),
                json!({"phase": "Running", "containerStatuses": [
            {"name": "c", "ready": ready, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]}),
            )
        };
        assert_eq!(found(&RULE, [status(false)]).len(), 1);
        assert_eq!(found(&RULE, [status(true)]), [""; 0]);
    }
}
