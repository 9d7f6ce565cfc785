//! H7: endpoints of a webhook or an aggregated server count as ready, and are on machines that are not there.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::subject;
use crate::rules::extension::backends::{Backend, Backends, webhooks};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "H7",
    title: "who should answer counts as ready and is on a machine that is not there",
    layer: Layer::Extension,
    explains: &[Explains { ids: &["H4", "H8"], scope: Scope::SameSubject }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let backends = Backends::of(evidence);
    let of_webhooks = webhooks(evidence).map(|webhook| {
        (webhook.index, Subject::new("Webhook", webhook.name()), &webhook.webhook["clientConfig"]["service"])
    });
    let of_servers =
        evidence.objects("APIService").map(|(index, _, server)| (index, subject(server), &server["spec"]["service"]));
    let mut found = Vec::new();
    for (index, subject, service) in of_webhooks.chain(of_servers) {
        found.extend(finding(evidence, &backends, index, subject, service));
    }
    found
}

fn finding(
    evidence: &Evidence,
    backends: &Backends<'_>,
    index: usize,
    subject: Subject,
    service: &Value,
) -> Option<Finding> {
    let (service, Backend::OnDeadNodes(nodes)) = backends.behind(service) else { return None };
    let told = format!(
        "{subject} is served by {service}, whose endpoints count as ready and are only on {}, whose agent is silent",
        nodes.join(", ")
    );
    let pods = format!("kubectl -n {} get pods -o wide", service.namespace);
    let repair = Repair::of(&[
        ("See which pods they are", pods.as_str()),
        (
            "Only when the machine is off: let its pods go, so that others start",
            "kubectl taint node NODE node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
        ),
    ]);
    let item = &evidence.items[index];
    let proof = [Some(index), evidence.object(&Subject::new("Node", &nodes[0])).map(|(index, _, _)| index)];
    let proof = proof.into_iter().flatten().collect();
    Some(Finding::failure(subject, item, Certainty::Likely, told, proof, repair).on_node(&nodes[0]))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::extension::backends::fixtures::*;
    use crate::rules::fixtures::*;

    #[test]
    fn endpoints_on_silent_machines_are_found() {
        let hook = || webhook("ValidatingWebhookConfiguration", "v", "Fail", 10);
        let machine = |status: &str| node("one", json!([{"type": "Ready", "status": status}]));
        let with = |machine: Value, ready| found(&RULE, [hook(), service("v"), slice("v", &[("one", ready)]), machine]);
        assert_eq!(with(machine("Unknown"), true).len(), 1);
        assert_eq!(with(machine("True"), true), [""; 0]);
        assert_eq!(with(machine("Unknown"), false), [""; 0]);
        let both = [
            hook(),
            service("v"),
            slice("v", &[("one", true), ("two", true)]),
            machine("Unknown"),
            node("two", json!([])),
        ];
        assert_eq!(found(&RULE, both), [""; 0]);
        // A fake node that does not exist any more.
        let gone = [hook(), service("v"), slice("v", &[("fake", true)]), machine("True")];
        assert_eq!(found(&RULE, gone).len(), 1);
    }
}
