//! C13: aggregated servers do not trust the API server that calls them.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity};
use crate::object::{condition, subject, text};
use crate::rules::certificates::files;
use crate::rules::signs::{Sign, Told};
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &[],
    words: &[
        &["requestheader", "x509:"],
        &["front-proxy", "x509:"],
        &["front-proxy", "certificate has expired"],
        &["metrics.k8s.io", "x509: certificate signed by unknown authority"],
    ],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "C13",
    title: "aggregated servers and the API server do not trust each other",
    layer: Layer::Api,
    explains: &[Explains { ids: &["H8", "H9"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    let own =
        files(evidence).find(|(_, _, file)| file.path.contains("front-proxy") && file.not_after < evidence.gathered);
    for (index, item, service) in evidence.objects("APIService") {
        let Some(available) = condition(service, "Available").filter(|available| available["status"] == "False") else {
            continue;
        };
        let message = text(&available["message"]);
        if !["x509:", "invalid peer certificate", "tls: ", "Unauthorized"].iter().any(|word| message.contains(word)) {
            continue;
        }
        let ended = own.as_ref().map_or(String::new(), |(_, _, file)| format!("; {} has ended", file.path));
        let text = format!("{}: {message}{ended}", text(&service["metadata"]["name"]));
        let proof = std::iter::once(index).chain(own.as_ref().map(|(index, _, _)| *index)).collect();
        let certainty = if own.is_some() { Certainty::Proven } else { Certainty::Likely };
        found.push(Finding::failure(subject(service), item, certainty, text, proof, repair()));
    }
    if found.is_empty() {
        let tell = |told: &Told<'_>| format!("{} says: {}", told.source.program(), told.text.trim());
        found = SIGN.found(evidence, Certainty::Likely, |_| repair(), tell);
        found.iter_mut().for_each(|finding| finding.severity = Severity::Failure);
    }
    found
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "See until when the pair is valid, and who signed it",
            "openssl x509 -noout -enddate -issuer -in /etc/kubernetes/pki/front-proxy-client.crt; openssl verify -CAfile /etc/kubernetes/pki/front-proxy-ca.crt /etc/kubernetes/pki/front-proxy-client.crt",
        ),
        ("Renew the client's, and restart the API server", "kedge certs renew front-proxy-client"),
        (
            "If the server's own is the one that is refused, give its APIService the right caBundle",
            "kubectl get apiservices -o yaml",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn mistrust_of_an_aggregated_server_is_found() {
        let service = |message: &str| {
            json!({"kind": "APIService", "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "status": {"conditions": [{"type": "Available", "status": "False", "reason": "FailedDiscoveryCheck", "message": message}]}})
        };
        let message = "failing or missing response from https://10.96.0.9:443/apis/metrics.k8s.io/v1beta1: Get \"https://10.96.0.9\": x509: certificate signed by unknown authority";
        assert_eq!(found(&RULE, [service(message)]).len(), 1);
        assert_eq!(
            found(&RULE, [service("endpoints for service/metrics-server in \"kube-system\" have no addresses")]),
            [""; 0]
        );
    }

    #[test]
    fn the_words_of_either_side_are_found() {
        check_lines(
            &RULE,
            &[
                (
                    "metrics-server",
                    r#"E0722 "Unable to authenticate the request" err="x509: certificate signed by unknown authority" user="requestheader: front-proxy-client""#,
                ),
                (
                    "kube-apiserver",
                    r#"E0722 remote_available_controller.go:1] v1beta1.metrics.k8s.io failed with: Get "https://10.96.0.9": x509: certificate signed by unknown authority"#,
                ),
            ],
            &[("kube-apiserver", "v1beta1.metrics.k8s.io failed with: connection refused")],
        );
    }
}
