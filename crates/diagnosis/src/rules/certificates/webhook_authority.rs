//! C14: the API server does not trust a webhook: its authority is missing or old, or its certificate has ended.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const CALL: &str = "failed calling webhook \"";
const TRUST: [&str; 4] =
    ["x509:", "invalid peer certificate", "tls: failed to verify certificate", "remote error: tls: bad certificate"];
const SIGN: Sign = Sign { programs: &[], words: &[&["failed calling webhook"]], over: &[] };

pub(super) const RULE: Rule = Rule {
    id: "C14",
    title: "the API server does not trust a webhook",
    layer: Layer::Extension,
    explains: &[Explains { ids: &["H4"], scope: Scope::SameSubject }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let events = evidence.objects("Event").map(|(index, item, event)| (vec![index], item, text(&event["message"])));
    let lines = SIGN.told_where(evidence, is_mistrust).into_iter().map(|told| (told.lines, told.item, told.text));
    let mut found: Vec<Finding> = Vec::new();
    for (proof, item, message) in events.chain(lines).filter(|(_, _, message)| is_mistrust(message)) {
        let Some(name) = webhook(message) else { continue };
        let subject = Subject::new("Webhook", name);
        if let Some(known) = found.iter_mut().find(|finding| finding.subject == subject) {
            known.evidence.extend(proof);
            continue;
        }
        let repair = Repair::of(&[
            (
                "See which authority its configuration has, and what its server shows",
                "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations -o yaml | grep -e name: -e caBundle",
            ),
            (
                "Put the authority in again: cert-manager does it by its annotation",
                "kubectl annotate validatingwebhookconfiguration NAME cert-manager.io/inject-ca-from=NAMESPACE/CERTIFICATE",
            ),
            ("If the server's certificate has ended, renew it and restart the server", ""),
        ]);
        let text = format!("{name}: {}", message.trim());
        found.push(Finding::failure(subject, item, Certainty::Proven, text, proof, repair));
    }
    found
}

fn is_mistrust(line: &str) -> bool {
    webhook(line).is_some() && TRUST.iter().any(|word| line.contains(word))
}

/// The name in `failed calling webhook "name": ...`, also where quotes are escaped.
fn webhook(line: &str) -> Option<&str> {
    let after = line.split_once(CALL).or_else(|| line.split_once("failed calling webhook \\\""))?.1;
    after.split(['"', '\\']).next()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn event(error: &str) -> Value {
        let message = format!(
            "Error creating: Internal error occurred: failed calling webhook \"v.example.com\": failed to call webhook: Post \"https://v.a.svc:443/?timeout=10s\": {error}"
        );
        json!({"kind": "Event", "metadata": {"name": "e", "namespace": "a"}, "type": "Warning", "reason": "FailedCreate", "message": message})
    }

    #[test]
    fn mistrust_is_found_once_for_each_webhook_and_silence_is_not_this() {
        let unknown = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
        let ended = "x509: certificate has expired or is not yet valid: current time A is after B";
        assert_eq!(found(&RULE, [event(unknown), event(ended)]).len(), 1);
        assert_eq!(found(&RULE, [event("context deadline exceeded")]), [""; 0]);
    }

    #[test]
    fn the_api_servers_log_says_it_too() {
        check_lines(
            &RULE,
            &[(
                "kube-apiserver",
                r#"W0722 10:00:00.0 1 dispatcher.go:210] Failed calling webhook, failing closed v.example.com: failed calling webhook "v.example.com": failed to call webhook: Post "https://v.a.svc": x509: certificate signed by unknown authority"#,
            )],
            &[(
                "kube-apiserver",
                r#"failed calling webhook "v.example.com": dial tcp 10.0.0.1:443: connect: connection refused"#,
            )],
        );
    }
}
