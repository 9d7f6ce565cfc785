//! C6: kubelets ask for the certificates that they serve with, and nobody approves.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{is_older_than, list, text};
use crate::rules::signs::Sign;
use crate::rules::{Layer, Rule};

/// Approvers answer within seconds.
const PATIENCE: i64 = 300;
const SIGNER: &str = "kubernetes.io/kubelet-serving";
const SIGN: Sign = Sign { programs: &[], words: &[&["remote error: tls: internal error"]], over: &[] };

pub(super) const RULE: Rule = Rule {
    id: "C6",
    title: "nobody approves what kubelets want to serve with",
    layer: Layer::Controllers,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let waiting: Vec<_> = evidence
        .objects("CertificateSigningRequest")
        .filter(|(_, _, request)| {
            request["spec"]["signerName"] == SIGNER
                && list(&request["status"]["conditions"]).next().is_none()
                && is_older_than(request, PATIENCE, evidence.gathered)
        })
        .collect();
    let lines = SIGN.told(evidence);
    let item = waiting.first().map(|(_, item, _)| *item).or(lines.first().map(|told| told.item));
    let Some(item) = item else { return Vec::new() };
    let repair = Repair::of(&[
        ("See who asks", "kubectl get csr"),
        ("Approve the ones of machines that you know", "kubectl certificate approve NAME"),
        (
            "And let somebody do it from now on: an approver of serving certificates, or take serverTLSBootstrap out of the kubelets' configuration",
            "",
        ),
    ]);
    let certainty = if waiting.is_empty() { Certainty::Possible } else { Certainty::Proven };
    let text = match waiting.first() {
        Some((_, _, first)) => format!(
            "{} requests for {SIGNER} wait, the first from {}: logs and exec of those machines fail",
            waiting.len(),
            text(&first["spec"]["username"])
        ),
        None => format!("a kubelet has no certificate to serve with: {}", lines[0].text.trim()),
    };
    let proof = waiting.iter().map(|(index, _, _)| *index).chain(lines.iter().flat_map(|told| told.lines.clone()));
    let subject = Subject::new("Signer", SIGNER);
    vec![Finding::failure(subject, item, certainty, text, proof.collect(), repair)]
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn request(signer: &str, conditions: Value) -> Value {
        json!({"kind": "CertificateSigningRequest", "metadata": {"name": "csr-1", "creationTimestamp": now().to_string()},
            "spec": {"signerName": signer, "username": "system:node:one"}, "status": {"conditions": conditions}})
    }

    #[test]
    fn an_old_request_without_a_word_is_found() {
        let serving = "kubernetes.io/kubelet-serving";
        assert_eq!(found(&RULE, [old(request(serving, json!(null)))]).len(), 1);
        let approved = json!([{"type": "Approved", "status": "True"}]);
        assert_eq!(found(&RULE, [old(request(serving, approved)), request(serving, json!(null))]), [""; 0]);
        assert_eq!(found(&RULE, [old(request("example.com/other", json!(null)))]), [""; 0]);
    }

    #[test]
    fn a_kubelet_that_cannot_serve_is_found() {
        check_lines(
            &RULE,
            &[(
                "kubectl",
                r#"Error from server: Get "https://192.0.2.2:10250/containerLogs/a/web/c": remote error: tls: internal error"#,
            )],
            &[("kubectl", "Error from server (NotFound): pods \"web\" not found")],
        );
    }
}
