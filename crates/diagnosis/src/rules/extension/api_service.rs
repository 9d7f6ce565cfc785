//! H8: an aggregated API server is not there, which stops the ends of namespaces.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{condition, subject, text};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "H8",
    title: "an aggregated API server is not there",
    layer: Layer::Extension,
    explains: &[Explains { ids: &["H9"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, service) in evidence.objects("APIService") {
        let Some(available) = condition(service, "Available").filter(|available| available["status"] == "False") else {
            continue;
        };
        let name = text(&service["metadata"]["name"]);
        let text = format!("{name}: {}: {}", text(&available["reason"]), text(&available["message"]));
        let repair = Repair::of(&[
            ("See its Service and the pods behind it", &format!("kubectl describe apiservice {name}")),
            ("If nobody needs it any more", &format!("kubectl delete apiservice {name}")),
        ]);
        found.push(Finding::failure(subject(service), item, Certainty::Proven, text, vec![index], repair));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_unavailable_one_is_found_and_an_available_one_is_not() {
        let service = |status: &str| {
            json!({"kind": "APIService", "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "status": {"conditions": [{"type": "Available", "status": status, "reason": "MissingEndpoints", "message": "m"}]}})
        };
        assert_eq!(found(&RULE, [service("False")]), ["v1beta1.metrics.k8s.io: MissingEndpoints: m"]);
        assert_eq!(found(&RULE, [service("True")]), [""; 0]);
    }
}
