//! H4: a webhook that must be asked does not answer.

use std::collections::BTreeMap;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::is_older_than;
use crate::rules::events::last_words;
use crate::rules::extension::backends::{Backends, Webhook, webhooks};
use crate::rules::{Explains, Layer, Rule, Scope};

/// Seconds that a new webhook's pods have to start.
const PATIENCE: i64 = 300;

pub(super) const RULE: Rule = Rule {
    id: "H4",
    title: "an admission webhook does not answer",
    layer: Layer::Extension,
    explains: &[Explains { ids: &["H5", "H9"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut told: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
    for word in last_words(evidence, |_, message| called(message).is_some()) {
        if let Some(name) = called(word.message) {
            told.entry(name).or_default().push((word.index, word.message));
        }
    }
    let backends = Backends::of(evidence);
    let mut found = Vec::new();
    for webhook in webhooks(evidence).filter(Webhook::must_answer) {
        let (service, backend) = backends.behind(&webhook.webhook["clientConfig"]["service"]);
        let is_new = !is_older_than(webhook.configuration, PATIENCE, evidence.gathered);
        if told.contains_key(webhook.name()) || !backend.is_dead() || is_new {
            continue;
        }
        let sentence = format!("{} must be asked, and nobody can answer: {}", webhook.name(), backend.told(&service));
        let item = &evidence.items[webhook.index];
        let subject = Subject::new("Webhook", webhook.name());
        let mut finding = Finding::failure(subject, item, Certainty::Likely, sentence, vec![webhook.index], repair());
        // What it is asked about may never be made.
        finding.severity = Severity::Warning;
        found.push(finding);
    }
    found.extend(told.into_iter().map(|(name, events)| of_events(evidence, name, &events)));
    found
}

fn of_events(evidence: &Evidence, name: &str, events: &[(usize, &str)]) -> Finding {
    let subject = Subject::new("Webhook", name);
    let proof = events.iter().map(|(index, _)| *index).collect();
    let item = &evidence.items[events[0].0];
    Finding::failure(subject, item, Certainty::Proven, events[0].1.to_owned(), proof, repair())
}

fn repair() -> Repair {
    Repair::of(&[
        ("See who serves it", "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations -o yaml"),
        ("Bring its backend back; until then, exempt the namespaces that it needs itself", ""),
        (
            "As a last resort, keep the configuration and let requests pass without it",
            "kubectl get validatingwebhookconfiguration NAME -o yaml > NAME.yaml; kubectl patch validatingwebhookconfiguration NAME --type json -p '[{\"op\":\"replace\",\"path\":\"/webhooks/0/failurePolicy\",\"value\":\"Ignore\"}]'",
        ),
    ])
}

/// The name in `failed calling webhook "name": ...`.
pub(super) fn called(message: &str) -> Option<&str> {
    message.split_once("failed calling webhook \"")?.1.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::extension::backends::fixtures::*;
    use crate::rules::fixtures::*;

    fn event(message: &str) -> serde_json::Value {
        json!({"kind": "Event", "metadata": {"name": "e", "namespace": "a"}, "type": "Warning", "reason": "FailedCreate", "message": message})
    }

    #[test]
    fn a_dead_webhook_is_found_once() {
        for why in [
            "context deadline exceeded",
            "dial tcp 10.96.0.9:443: connect: connection refused",
            "no endpoints available for service \"v\"",
        ] {
            let message = format!(
                "Error creating: Internal error occurred: failed calling webhook \"v.example.com\": failed to call webhook: Post \"https://v.a.svc:443/?timeout=10s\": {why}"
            );
            assert_eq!(found(&RULE, [event(&message), event(&message)]).len(), 1);
        }
    }

    #[test]
    fn a_webhook_that_says_no_is_right() {
        assert_eq!(
            found(&RULE, [event("Error creating: admission webhook \"v.example.com\" denied the request: no")]),
            [""; 0]
        );
    }

    #[test]
    fn one_without_endpoints_is_found_before_it_is_called() {
        let hook = |policy| webhook("ValidatingWebhookConfiguration", "v", policy, 10);
        assert_eq!(
            found(&RULE, [hook("Fail"), service("v"), slice("v", &[("one", false)])]),
            ["v.example.com must be asked, and nobody can answer: Service a/v has no ready endpoint"]
        );
        assert_eq!(found(&RULE, [hook("Fail"), service("w"), slice("w", &[("one", true)])]).len(), 1);
        assert_eq!(found(&RULE, [hook("Fail"), service("v"), slice("v", &[("one", true)])]), [""; 0]);
        assert_eq!(found(&RULE, [hook("Ignore"), service("v"), slice("v", &[])]), [""; 0]);
        // Nobody looked at Services.
        assert_eq!(found(&RULE, [hook("Fail")]), [""; 0]);
        let mut young = hook("Fail");
        young["metadata"]["creationTimestamp"] = json!(now().to_string());
        assert_eq!(found(&RULE, [young, service("v"), slice("v", &[])]), [""; 0]);
    }
}
