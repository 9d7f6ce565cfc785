//! C7: a server is called by a name or an address that its certificate does not have.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;
use crate::rules::certificates::{said, served};
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &[],
    words: &[
        &["x509: certificate is valid for", ", not "],
        &["x509: certificate is not valid for any names"],
        &["x509: cannot validate certificate for", "because it doesn't contain any IP SANs"],
        &["certificate not valid for name"],
        &["invalid peer certificate: NotValidForName"],
    ],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "C7",
    title: "a server is called by a name that its certificate does not have",
    layer: Layer::System,
    explains: &[
        Explains { ids: &["A15", "A16", "B9", "E1", "H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["W1"], scope: Scope::ControlPlane },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = uncovered(evidence);
    for said in said(evidence, &SIGN) {
        if found.iter().any(|known| known.place == said.item.place) {
            continue;
        }
        let text = format!("{} says: {}", said.who, said.text);
        found.push(Finding::failure(said.subject, said.item, Certainty::Likely, text, said.proof, repair("NAME")));
    }
    found
}

/// Kubeconfigs of a machine whose server is not among the names that its API server's certificate has.
fn uncovered(evidence: &Evidence) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for (index, item, config) in evidence.documents("kubeconfig") {
        let Some((host, port)) = host_of(text(&config["server"])) else { continue };
        if config["tlsServerName"].is_string() {
            continue;
        }
        let end = format!(":{port}");
        let mut servers =
            served(evidence).filter(|(_, other, _, address)| other.place == item.place && address.ends_with(&end));
        let Some((shown, _, certificate, address)) = servers.next() else { continue };
        if certificate.names.is_empty() || certificate.names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
            continue;
        }
        let text = format!(
            "{} calls {host}, and the certificate at {address} is valid for {} only",
            item.origin.rsplit(' ').next().unwrap_or_default(),
            certificate.names.join(", ")
        );
        if found.iter().all(|known| known.subject.name != host) {
            let subject = Subject::new("Server", host);
            found.push(Finding::failure(subject, item, Certainty::Likely, text, vec![index, shown], repair(host)));
        }
    }
    found
}

/// Host and port of `https://HOST:PORT`.
fn host_of(server: &str) -> Option<(&str, &str)> {
    let authority = server.strip_prefix("https://")?.split('/').next()?;
    let (host, port) = authority.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']), port))
}

fn repair(name: &str) -> Repair {
    Repair::of(&[
        (
            "Add the name to the cluster's configuration",
            &format!("kubectl -n kube-system edit configmap kubeadm-config # apiServer.certSANs: [{name}]"),
        ),
        (
            "Make the certificate anew: without the old one, it is made with all names",
            "mkdir -p /root/pki && mv /etc/kubernetes/pki/apiserver.crt /etc/kubernetes/pki/apiserver.key /root/pki/ && kedge init phase certs apiserver --config CONFIG",
        ),
        (
            "Restart the API server; if the machine's address changed, do the same with etcd's server and peer certificates",
            "crictl stop $(crictl ps -q --name kube-apiserver)",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn what_clients_say_is_found_and_a_registry_is_not() {
        check_lines(
            &RULE,
            &[
                (
                    "kubelet",
                    r#"E0722 10:00:00.0 1 reflector.go:1] failed to list: Get "https://192.0.2.9:6443": tls: failed to verify certificate: x509: certificate is valid for 10.96.0.1, 192.0.2.1, not 192.0.2.9"#,
                ),
                (
                    "kubectl",
                    "Unable to connect to the server: x509: certificate is valid for kubernetes, kubernetes.default, not api.example.com",
                ),
            ],
            &[("kubelet", "Failed to pull image: x509: certificate is valid for a.example.com, not b.example.com")],
        );
        let error = "invalid peer certificate: certificate not valid for name \"api.example.com\"; certificate is only valid for DnsName(\"kubernetes\")";
        let call =
            on("one", Fact::Call { target: "https://api.example.com:6443".to_owned(), error: Some(error.to_owned()) });
        assert_eq!(found_among(&RULE, [call]).len(), 1);
    }

    #[test]
    fn a_kubeconfig_is_held_against_the_served_names() {
        let config = |server: &str| document("kubeconfig", json!({"server": server}));
        let served = || {
            let mut item = serving("/pki/apiserver.crt", "127.0.0.1:6443", "a", -1, 364);
            if let Fact::Certificate(certificate) = &mut item.fact {
                certificate.names = vec!["kubernetes".to_owned(), "192.0.2.1".to_owned()];
            }
            item
        };
        assert_eq!(found_among(&RULE, [config("https://192.0.2.9:6443"), served()]).len(), 1);
        assert_eq!(found_among(&RULE, [config("https://192.0.2.1:6443"), served()]), [""; 0]);
        assert_eq!(found_among(&RULE, [config("https://192.0.2.9:443"), served()]), [""; 0]);
    }
}
