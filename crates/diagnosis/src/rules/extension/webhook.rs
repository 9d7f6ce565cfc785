//! H4: a webhook that must be asked does not answer.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "H4", title: "an admission webhook does not answer", layer: Layer::Extension, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for (index, item, event) in evidence.objects("Event") {
        let message = text(&event["message"]);
        let Some(name) = webhook(message) else { continue };
        let subject = Subject::new("Webhook", name);
        if let Some(known) = found.iter_mut().find(|finding| finding.subject == subject) {
            known.evidence.push(index);
            continue;
        }
        let repair = Repair::of(&[
            ("See who serves it", "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations -o yaml"),
            ("Bring its backend back; until then, exempt the namespaces that it needs itself", ""),
        ]);
        found.push(Finding::failure(subject, item, Certainty::Proven, message.to_owned(), vec![index], repair));
    }
    found
}

/// The name in `failed calling webhook "name": ...`.
fn webhook(message: &str) -> Option<&str> {
    message.split_once("failed calling webhook \"")?.1.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn event(message: &str) -> serde_json::Value {
        json!({"kind": "Event", "metadata": {"name": "e", "namespace": "a"}, "type": "Warning", "reason": "FailedCreate", "message": message})
    }

    #[test]
    fn a_dead_webhook_is_found_once() {
        let message = "Error creating: Internal error occurred: failed calling webhook \"v.example.com\": failed to call webhook: Post \"https://v.a.svc:443/?timeout=10s\": context deadline exceeded";
        assert_eq!(found(&RULE, [event(message), event(message)]).len(), 1);
    }

    #[test]
    fn a_webhook_that_says_no_is_right() {
        assert_eq!(
            found(&RULE, [event("Error creating: admission webhook \"v.example.com\" denied the request: no")]),
            [""; 0]
        );
    }
}
