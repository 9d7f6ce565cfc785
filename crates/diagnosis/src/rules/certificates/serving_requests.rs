//! C6: kubelets ask for certificates, to serve with or to be clients with, and nobody approves.

use serde_json::Value;

use crate::evidence::{Evidence, Item};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{is_older_than, list, text};
use crate::rules::signs::Sign;
use crate::rules::{Layer, Rule};

/// Approvers answer within seconds.
const PATIENCE: i64 = 300;
const SERVING: &str = "kubernetes.io/kubelet-serving";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Requests that the command names; a list has the others.
const MOST_NAMED: usize = 5;
const SIGN: Sign = Sign { programs: &[], words: &[&["remote error: tls: internal error"]], over: &[] };

pub(super) const RULE: Rule = Rule {
    id: "C6",
    title: "nobody approves the certificates that kubelets ask for",
    layer: Layer::Controllers,
    explains: &[],
    find,
};

/// A request with its item.
type Waiting<'a> = (usize, &'a Item, &'a Value);

fn find(evidence: &Evidence) -> Vec<Finding> {
    [serving(evidence), joining(evidence)].into_iter().flatten().collect()
}

fn waiting<'a>(evidence: &'a Evidence, signer: &str) -> Vec<Waiting<'a>> {
    let of_kind = evidence.objects("CertificateSigningRequest");
    let waiting = of_kind.filter(|(_, _, request)| {
        request["spec"]["signerName"] == signer
            && list(&request["status"]["conditions"]).next().is_none()
            && is_older_than(request, PATIENCE, evidence.gathered)
    });
    waiting.collect()
}

/// The command that approves these, by their names.
fn approve(waiting: &[Waiting<'_>]) -> String {
    let names: Vec<&str> = waiting.iter().take(MOST_NAMED).map(|(_, _, csr)| text(&csr["metadata"]["name"])).collect();
    let names = if names.is_empty() { "NAME".to_owned() } else { names.join(" ") };
    format!("kubectl certificate approve {names}")
}

fn serving(evidence: &Evidence) -> Option<Finding> {
    let waiting = waiting(evidence, SERVING);
    let lines = SIGN.told(evidence);
    let item = waiting.first().map(|(_, item, _)| *item).or(lines.first().map(|told| told.item))?;
    let repair = Repair::of(&[
        ("See who asks", "kubectl get csr"),
        ("Approve the ones of machines that you know", &approve(&waiting)),
        (
            "And let somebody do it from now on: an approver of serving certificates, or take serverTLSBootstrap out of the kubelets' configuration",
            "",
        ),
    ]);
    let certainty = if waiting.is_empty() { Certainty::Possible } else { Certainty::Proven };
    let text = match waiting.first() {
        Some((_, _, first)) => format!(
            "{} requests for {SERVING} wait, the first from {}: logs and exec of those machines fail",
            waiting.len(),
            text(&first["spec"]["username"])
        ),
        None => format!("a kubelet has no certificate to serve with: {}", lines[0].text.trim()),
    };
    let proof = waiting.iter().map(|(index, _, _)| *index).chain(lines.iter().flat_map(|told| told.lines.clone()));
    Some(Finding::failure(Subject::new("Signer", SERVING), item, certainty, text, proof.collect(), repair))
}

/// Machines that want to join, or whose client certificates run out.
fn joining(evidence: &Evidence) -> Option<Finding> {
    let waiting = waiting(evidence, CLIENT);
    let (_, item, first) = waiting.first()?;
    let text = format!(
        "{} requests for {CLIENT} wait, the first from {}: those machines cannot join, or will be locked out",
        waiting.len(),
        text(&first["spec"]["username"])
    );
    let repair = Repair::of(&[
        ("See who asks", "kubectl get csr"),
        ("Approve the ones of machines that you know", &approve(&waiting)),
        (
            "And see why the controller manager does not: it approves bootstrappers and nodes that these bindings name",
            "kubectl get clusterrolebindings -o wide | grep certificatesigningrequests",
        ),
    ]);
    let proof = waiting.iter().map(|(index, _, _)| *index).collect();
    Some(Finding::failure(Subject::new("Signer", CLIENT), item, Certainty::Proven, text, proof, repair))
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
    fn requests_are_named_in_the_command() {
        for signer in [super::SERVING, super::CLIENT] {
            let waiting = [old(request(signer, json!(null)))].map(|csr| on("one", Fact::Object(csr)));
            let items: Vec<Item> = waiting.into();
            let found = (RULE.find)(&Evidence { gathered: now(), items: items.into(), unseen: Vec::new() });
            assert_eq!(found[0].repair.steps[1].command.as_deref(), Some("kubectl certificate approve csr-1"));
            assert!(found[0].text.contains("the first from system:node:one"), "{}", found[0].text);
        }
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
