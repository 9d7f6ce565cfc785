//! H5: webhooks that may be passed over do not answer, one after the other, until the whole request is out of time.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::events::last_words;
use crate::rules::extension::backends::{Backends, Webhook, webhooks};
use crate::rules::extension::webhook::called;
use crate::rules::{Layer, Rule};

/// Seconds that the API server gives a request.
const REQUEST: u64 = 30;

pub(super) const RULE: Rule = Rule {
    id: "H5",
    title: "the timeouts of several webhooks add up to more than a request may take",
    layer: Layer::Extension,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let backends = Backends::of(evidence);
    let is_dead = |webhook: &Webhook<'_>| {
        !webhook.must_answer() && backends.behind(&webhook.webhook["clientConfig"]["service"]).1.is_dead()
    };
    let dead: Vec<Webhook<'_>> = webhooks(evidence).filter(is_dead).collect();
    let timeouts: Vec<usize> =
        last_words(evidence, |_, message| is_timeout(message)).iter().map(|word| word.index).collect();
    let sum = waited(&dead);
    if sum < REQUEST {
        return if timeouts.is_empty() { Vec::new() } else { unexplained(evidence, timeouts) };
    }
    let names = dead.iter().map(|webhook| format!("{} ({} s)", webhook.name(), webhook.timeout()));
    let told = format!(
        "requests wait {sum} s for webhooks that do not answer, and have {REQUEST} s: {}",
        names.collect::<Vec<_>>().join(", ")
    );
    let proof: Vec<usize> = timeouts.iter().copied().chain(dead.iter().map(|webhook| webhook.index)).collect();
    let item = &evidence.items[dead[0].index];
    let mut finding =
        Finding::failure(Subject::new("Cluster", "webhooks"), item, Certainty::Likely, told, proof, repair());
    if timeouts.is_empty() {
        finding.severity = Severity::Warning;
    }
    vec![finding]
}

/// How long a request waits: those that may change it are asked one after the other, the others all at once.
fn waited(webhooks: &[Webhook<'_>]) -> u64 {
    let of = |is_mutating: bool| {
        webhooks.iter().filter(move |webhook| webhook.is_mutating == is_mutating).map(Webhook::timeout)
    };
    of(true).sum::<u64>() + of(false).max().unwrap_or_default()
}

/// Requests out of time that name no webhook, with webhooks that together may take as long.
fn unexplained(evidence: &Evidence, timeouts: Vec<usize>) -> Vec<Finding> {
    let slow: Vec<Webhook<'_>> = webhooks(evidence).filter(|webhook| !webhook.must_answer()).collect();
    let sum = waited(&slow);
    if sum < REQUEST {
        return Vec::new();
    }
    let told = format!(
        "requests are out of time and name no webhook; those that may be passed over may take {sum} s together"
    );
    let item = &evidence.items[timeouts[0]];
    let proof = timeouts.iter().copied().chain(slow.iter().map(|webhook| webhook.index)).collect();
    vec![Finding::failure(Subject::new("Cluster", "webhooks"), item, Certainty::Possible, told, proof, repair())]
}

fn is_timeout(message: &str) -> bool {
    message.contains("request did not complete within requested timeout") && called(message).is_none()
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "See whether their pods run and whether a network policy keeps the API server from them",
            "kubectl get mutatingwebhookconfigurations,validatingwebhookconfigurations -o yaml",
        ),
        (
            "Give each less time",
            "kubectl patch mutatingwebhookconfiguration NAME --type json -p '[{\"op\":\"replace\",\"path\":\"/webhooks/0/timeoutSeconds\",\"value\":3}]'",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::extension::backends::fixtures::*;
    use crate::rules::fixtures::*;

    const TEXT: &str =
        "Error creating: Timeout: request did not complete within requested timeout - context deadline exceeded";

    fn hooks(kind: &str, seconds: u64) -> Vec<Value> {
        ["u", "v", "w"].into_iter().flat_map(|name| [webhook(kind, name, "Ignore", seconds), service(name)]).collect()
    }

    #[test]
    fn dead_webhooks_that_may_be_passed_over_add_up() {
        let dead =
            |seconds| hooks("MutatingWebhookConfiguration", seconds).into_iter().chain([slice("u", &[("one", false)])]);
        assert_eq!(
            found(&RULE, dead(10).chain([event_of("ReplicaSet", "web", "FailedCreate", TEXT)])),
            [
                "requests wait 30 s for webhooks that do not answer, and have 30 s: u.example.com (10 s), v.example.com (10 s), w.example.com (10 s)"
            ]
        );
        assert_eq!(found(&RULE, dead(10)).len(), 1);
        assert_eq!(found(&RULE, dead(3)), [""; 0]);
        // Those that only look are asked at once.
        let validating = hooks("ValidatingWebhookConfiguration", 10).into_iter().chain([slice("u", &[])]);
        assert_eq!(found(&RULE, validating), [""; 0]);
    }

    #[test]
    fn a_timeout_alone_or_one_that_names_its_webhook_is_something_else() {
        assert_eq!(found(&RULE, [event_of("ReplicaSet", "web", "FailedCreate", TEXT)]), [""; 0]);
        let named = format!("failed calling webhook \"v.example.com\": {TEXT}");
        let slow = hooks("MutatingWebhookConfiguration", 10).into_iter();
        assert_eq!(found(&RULE, slow.chain([event_of("ReplicaSet", "web", "FailedCreate", &named)])), [""; 0]);
    }
}
