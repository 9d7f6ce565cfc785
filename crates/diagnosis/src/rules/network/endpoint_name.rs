//! G22: the name of the cluster's endpoint does not resolve on a machine.

use crate::evidence::{Evidence, Place};
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &["kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl", "kubeadm"],
    words: &[
        &["dial tcp: lookup ", ": no such host"],
        &["dial tcp: lookup ", ": server misbehaving"],
        &["dial tcp: lookup ", ": i/o timeout"],
        &["dial tcp: lookup ", "Temporary failure in name resolution"],
        &["failed to lookup address information"],
    ],
    over: &["Successfully registered node", "Successfully renewed lease", "Lease updated"],
};

pub(super) const RULE: Rule = Rule {
    id: "G22",
    title: "the name of the cluster's endpoint does not resolve",
    layer: Layer::System,
    explains: &[
        Explains { ids: &["A15", "H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["E1", "E2"], scope: Scope::SameNode },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    let is_of_api = |line: &str| line.contains("/api/") || line.contains("/apis/") || line.contains(":6443");
    for told in SIGN.told_where(evidence, is_of_api) {
        if !found.iter().any(|known| known.place == told.item.place) {
            found.push(finding(&told.item.place, told.item, told.text, told.lines.clone()));
        }
    }
    for (index, item, error) in evidence.pick(failed_call) {
        let is_known = found.iter().any(|known| known.place == item.place);
        if SIGN.is_said_by(error) && !is_known {
            found.push(finding(&item.place, item, error, vec![index]));
        }
    }
    found
}

fn failed_call(fact: &Fact) -> Option<&str> {
    match fact {
        Fact::Call { error, .. } => error.as_deref(),
        _ => None,
    }
}

fn finding(place: &Place, item: &crate::evidence::Item, said: &str, proof: Vec<usize>) -> Finding {
    let sentence = match lookup(said) {
        Some((name, "")) => format!("the name {name}, by which the API server is called, does not resolve"),
        Some((name, server)) => {
            format!("the name {name}, by which the API server is called, does not resolve at {server}")
        }
        None => format!("the name of the API server does not resolve: {}", said.trim()),
    };
    let repair = Repair::of(&[
        ("Ask by hand", "getent hosts NAME; cat /etc/resolv.conf"),
        (
            "Write it down on each machine, so that the cluster does not wait for a server that it may itself run",
            "echo 'ADDRESS NAME' >> /etc/hosts",
        ),
    ]);
    Finding::failure(Subject::machine(place), item, Certainty::Proven, sentence, proof, repair)
}

/// The name and the server in `lookup NAME on SERVER: ...`; the server may be missing.
fn lookup(said: &str) -> Option<(&str, &str)> {
    let rest = said.split_once("lookup ")?.1;
    if rest.starts_with("address") {
        return None;
    }
    let name = rest.split([' ', ':']).next()?;
    let server = rest[name.len()..].strip_prefix(" on ").and_then(|rest| rest.split(": ").next());
    Some((name, server.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_unknown_name_is_found_with_its_server() {
        for why in ["no such host", "server misbehaving"] {
            let text = format!(
                "E0722 10:00:00.0 1 controller.go:145] \"Failed to ensure lease exists, will retry\" err=\"Get \\\"https://k8s.example:6443/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/one?timeout=10s\\\": dial tcp: lookup k8s.example on 127.0.0.53:53: {why}\" interval=\"7s\""
            );
            assert_eq!(
                found_among(&RULE, [logged("kubelet", &text)]),
                ["the name k8s.example, by which the API server is called, does not resolve at 127.0.0.53:53"]
            );
        }
        let call = Fact::Call {
            target: "https://k8s.example:6443".to_owned(),
            error: Some(
                "client error (Connect): dns error: failed to lookup address information: Name or service not known"
                    .to_owned(),
            ),
        };
        assert_eq!(found_among(&RULE, [on("one", call)]).len(), 1);
    }

    #[test]
    fn names_of_others_are_no_trouble_of_the_cluster() {
        let image = "failed to pull image: dial tcp: lookup registry.example on 127.0.0.53:53: no such host";
        assert_eq!(found_among(&RULE, [logged("kubelet", image)]), [""; 0]);
        let refused = "Get \"https://10.0.0.1:6443/api/v1/nodes\": dial tcp 10.0.0.1:6443: connect: connection refused";
        assert_eq!(found_among(&RULE, [logged("kubelet", refused)]), [""; 0]);
    }
}
