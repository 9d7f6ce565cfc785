//! A5: the command of a control-plane component does not exist.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{container_statuses, subject, terminated, text};
use crate::rules::control_plane::{component_of, effects};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "A5",
    title: "the command of a control-plane component does not exist",
    layer: Layer::Etcd,
    explains: effects::OF_A_COMPONENT,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, pod) in evidence.objects("Pod") {
        let Some(component) = component_of(pod) else { continue };
        for status in container_statuses(pod) {
            let Some(end) = terminated(status) else { continue };
            // The runtime could not start it at all: 128, unlike a program that ended by itself.
            let is_start = text(&end["reason"]) == "StartError" || end["exitCode"] == 128;
            let message = text(&end["message"]);
            if !is_start || !(message.contains("executable file not found") || message.contains("no such file")) {
                continue;
            }
            let repair = Repair::of(&[
                (
                    "Look at the command that was meant",
                    &format!("kedge init phase control-plane {} --dry-run", component.phase()),
                ),
                ("Write the manifest beside the directory and move it in, so that no half of it is read", ""),
            ])
            .acting(1, component.restore());
            let text = format!("{} cannot start: {}", component.name(), message.trim());
            found.push(
                Finding::failure(subject(pod), item, Certainty::Proven, text, vec![index], repair)
                    .only(component.effects()),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    const MESSAGE: &str = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc \
        create failed: unable to start container process: exec: \"kube-schedulerr\": executable file not found in $PATH";

    fn scheduler(reason: &str, code: i32, message: &str) -> serde_json::Value {
        pod(
            "kube-system",
            "kube-scheduler-one",
            json!({"nodeName": "one"}),
            json!({"containerStatuses": [{
                "name": "kube-scheduler",
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"reason": reason, "exitCode": code, "message": message}},
            }]}),
        )
    }

    #[test]
    fn a_wrong_executable_is_found() {
        assert_eq!(found(&RULE, [scheduler("StartError", 128, MESSAGE)]).len(), 1);
        assert_eq!(found(&RULE, [scheduler("ContainerCannotRun", 128, MESSAGE)]).len(), 1);
    }

    #[test]
    fn a_program_that_ends_with_an_error_is_something_else() {
        assert_eq!(found(&RULE, [scheduler("Error", 1, "stat /etc/x.conf: no such file or directory")]), [""; 0]);
        let mut other = scheduler("StartError", 128, MESSAGE);
        other["metadata"]["name"] = json!("web");
        assert_eq!(found(&RULE, [other]), [""; 0]);
    }
}
