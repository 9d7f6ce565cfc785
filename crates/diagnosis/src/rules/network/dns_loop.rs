//! G13: the cluster's DNS asks itself: the machine's resolver is a stub on the loopback, which coredns takes for its own.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::{container_statuses, subject};
use crate::rules::network::lookups::is_dns;
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign { programs: &["coredns"], words: &[&["plugin/loop: Loop (", "detected for zone"]], over: &[] };
const STUB: &str = "/run/systemd/resolve/resolv.conf";

pub(super) const RULE: Rule = Rule {
    id: "G13",
    title: "the cluster's DNS asks itself",
    layer: Layer::Dns,
    explains: &[
        Explains { ids: &["W1"], scope: Scope::SameSubject },
        Explains { ids: &["G25"], scope: Scope::Anywhere },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = SIGN.found(
        evidence,
        Certainty::Proven,
        |_| repair(),
        |told| format!("a question that the cluster's DNS passed on came back to it: {}", told.text.trim()),
    );
    for (index, item, pod) in evidence.objects("Pod").filter(|(_, _, pod)| is_dns(pod)) {
        let subject = subject(pod);
        let message = container_statuses(pod).find_map(last_message).filter(|message| SIGN.is_said_by(message));
        if let Some(message) = message.filter(|_| !found.iter().any(|known| known.subject == subject)) {
            let told = format!("a question that {subject} passed on came back to it: {}", message.trim());
            found.push(Finding::failure(subject, item, Certainty::Proven, told, vec![index], repair()));
        }
    }
    if found.is_empty() {
        found.extend(stubs(evidence));
    }
    found
}

fn last_message(status: &Value) -> Option<&str> {
    crate::object::terminated(status).and_then(|end| end["message"].as_str())
}

/// Machines whose kubelet gives pods a file that only names the loopback.
fn stubs(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, (path, content)) in evidence.pick(resolver) {
        let Some((kubelet, _, _)) = evidence
            .documents("kubelet")
            .find(|(_, other, kubelet)| other.place == item.place && configured(kubelet) == path)
        else {
            continue;
        };
        let mut servers = nameservers(content).peekable();
        if servers.peek().is_none() || !servers.all(is_loopback) {
            continue;
        }
        let told = format!("the kubelet gives pods {path}, and all nameservers in it are on the machine's loopback");
        let subject = Subject::machine(&item.place);
        let proof = vec![index, kubelet];
        let mut finding = Finding::failure(subject, item, Certainty::Likely, told, proof, repair());
        finding.severity = Severity::Warning;
        found.push(finding);
    }
    found
}

pub(super) fn resolver(fact: &Fact) -> Option<(&str, &str)> {
    match fact {
        Fact::Document { name, path, content: Ok(Value::String(text)) } if name == "resolv.conf" => Some((path, text)),
        _ => None,
    }
}

fn configured(kubelet: &Value) -> &str {
    kubelet["resolvConf"].as_str().unwrap_or("/etc/resolv.conf")
}

pub(super) fn nameservers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next())
}

fn is_loopback(server: &str) -> bool {
    server.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "Give pods the resolvers behind the stub",
            &format!(
                "sed -i 's#^resolvConf:.*#resolvConf: {STUB}#' /var/lib/kubelet/config.yaml && systemctl restart kubelet"
            ),
        ),
        ("Make the DNS pods again, with the new file", "kubectl -n kube-system delete pod -l k8s-app=kube-dns"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_loop_is_found_in_the_log_and_in_the_status() {
        for line in [
            "[FATAL] plugin/loop: Loop (127.0.0.1:55953 -> :1053) detected for zone \".\", see https://coredns.io/plugins/loop#troubleshooting. Query: \"HINFO 4547991504243258144.3688648895315093531.\"",
            "plugin/loop: Loop (127.0.0.1:60322 -> :53) detected for zone \".\"",
        ] {
            assert_eq!(found_among(&RULE, [container_logged("coredns", line)]).len(), 1);
            let status = json!({"containerStatuses": [{"name": "coredns", "lastState": {"terminated": {"exitCode": 1, "message": line}}}]});
            let mut dns = pod("kube-system", "coredns-1", json!({}), status);
            dns["metadata"]["labels"] = json!({"k8s-app": "kube-dns"});
            assert_eq!(found(&RULE, [dns]).len(), 1);
        }
        assert_eq!(found_among(&RULE, [container_logged("coredns", "[INFO] plugin/loop: no loop")]), [""; 0]);
    }

    #[test]
    fn a_stub_that_pods_get_is_foretold() {
        let file = |text: &str| {
            on(
                "one",
                Fact::Document {
                    name: "resolv.conf".to_owned(),
                    path: "/etc/resolv.conf".to_owned(),
                    content: Ok(json!(text)),
                },
            )
        };
        let stub = "# made by systemd\nnameserver 127.0.0.53\noptions edns0\n";
        assert_eq!(found_among(&RULE, [file(stub), document("kubelet", json!({}))]).len(), 1);
        let behind = json!({"resolvConf": "/run/systemd/resolve/resolv.conf"});
        assert_eq!(found_among(&RULE, [file(stub), document("kubelet", behind)]), [""; 0]);
        assert_eq!(found_among(&RULE, [file("nameserver 10.0.0.2\n"), document("kubelet", json!({}))]), [""; 0]);
        assert_eq!(found_among(&RULE, [file(stub)]), [""; 0]);
    }
}
