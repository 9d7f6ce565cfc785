//! C8: a client does not trust the API server, or is not trusted: its kubeconfig is of another cluster or an older authority.

use crate::evidence::Evidence;
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;
use crate::rules::certificates::{files, said};
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &["kubelet", "kubectl", "kubeadm", "kube-controller-manager", "kube-scheduler", "kube-proxy"],
    words: &[
        &["x509: certificate signed by unknown authority"],
        &["invalid peer certificate: UnknownIssuer"],
        &["invalid peer certificate: BadSignature"],
    ],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "C8",
    title: "a kubeconfig trusts another authority than the cluster's",
    layer: Layer::System,
    explains: &[
        Explains { ids: &["A15", "E1", "H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["W1"], scope: Scope::ControlPlane },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = strangers(evidence);
    for said in said(evidence, &SIGN) {
        if found.iter().any(|known| known.place == said.item.place) {
            continue;
        }
        let text = format!("{} says: {}", said.who, said.text);
        found.push(Finding::failure(said.subject, said.item, Certainty::Likely, text, said.proof, repair()));
    }
    found
}

/// Kubeconfigs of a machine of the control plane that trust another authority than the machine's own.
fn strangers(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    let configs = evidence.pick(|fact| match fact {
        Fact::Document { name, path, content: Ok(content) } if name == "kubeconfig" => Some((path, content)),
        _ => None,
    });
    for (index, item, (path, config)) in configs {
        let trusted = text(&config["authority"]);
        let mut own = files(evidence)
            .filter(|(_, other, file)| other.place == item.place && file.path.ends_with("/etc/kubernetes/pki/ca.crt"));
        let Some((authority, _, file)) = own.next() else { continue };
        if trusted.is_empty() || file.fingerprint.is_empty() || trusted.contains(&file.fingerprint) {
            continue;
        }
        let text = format!("{path} trusts another authority than {}", file.path);
        let subject = Subject::new("File", path);
        found.push(Finding::failure(subject, item, Certainty::Proven, text, vec![index, authority], repair()));
    }
    found
}

fn repair() -> Repair {
    Repair::of(&[
        ("For a person: take the cluster's own kubeconfig", "cp /etc/kubernetes/admin.conf ~/.kube/config"),
        (
            "For a component: make its kubeconfig anew",
            "rm /etc/kubernetes/scheduler.conf && kedge init phase kubeconfig scheduler",
        ),
        (
            "For a machine whose authority was changed: join it anew, or give it the new one",
            "kedge token create --print-join-command",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn mistrust_of_the_cluster_is_found_and_of_others_is_not() {
        check_lines(
            &RULE,
            &[
                (
                    "kubectl",
                    r#"Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by unknown authority (possibly because of "crypto/rsa: verification error" while trying to verify candidate authority certificate "kubernetes")"#,
                ),
                (
                    "kubelet",
                    r#"E0722 "Failed to watch" err="Get \"https://192.0.2.1:6443\": x509: certificate signed by unknown authority""#,
                ),
                ("kube-scheduler", "the request failed: invalid peer certificate: UnknownIssuer"),
            ],
            &[
                ("kubelet", "Failed to pull image \"r.example.com/a\": x509: certificate signed by unknown authority"),
                ("kube-apiserver", "failed calling webhook \"x\": x509: certificate signed by unknown authority"),
            ],
        );
    }

    #[test]
    fn a_kubeconfig_of_another_cluster_is_found() {
        let authority = || {
            let mut item = certificate("/etc/kubernetes/pki/ca.crt", -1, 3649);
            if let Fact::Certificate(file) = &mut item.fact {
                file.fingerprint = "own".to_owned();
            }
            item
        };
        let config = |trusted: &str| document("kubeconfig", json!({"server": "https://a:6443", "authority": trusted}));
        assert_eq!(found_among(&RULE, [authority(), config("other")]).len(), 1);
        assert_eq!(found_among(&RULE, [authority(), config("own")]), [""; 0]);
        assert_eq!(found_among(&RULE, [authority(), config("old own")]), [""; 0]);
        assert_eq!(found_among(&RULE, [config("other")]), [""; 0]);
    }
}
