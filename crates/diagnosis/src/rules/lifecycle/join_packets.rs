//! D20: a join reaches the API server's port and then hangs: small packets pass, large ones do not.

use crate::evidence::{Evidence, Place};
use crate::facts::NetworkFact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::lines::{Told, one_of_each_machine, says, told};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "D20",
    title: "large packets of a join are lost on the way",
    layer: Layer::System,
    explains: &[Explains { ids: &["E1", "G7"], scope: Scope::SameNode }],
    find,
};

const FORMS: &[&[&str]] = &[
    &["failed to request the cluster-info ConfigMap", "TLS handshake timeout"],
    &["failed to request the cluster-info ConfigMap", "Client.Timeout"],
    &["6443", "TLS handshake timeout"],
    &["6443", "the TLS handshake took too long"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let told = told(
        evidence,
        |line| is_of_join(&line.source) && says(&line.text, FORMS),
        |line| line.text.contains("This node has joined the cluster"),
    );
    one_of_each_machine(told.iter().map(|told| finding(evidence, told)))
}

fn is_of_join(source: &crate::facts::LogSource) -> bool {
    matches!(source, crate::facts::LogSource::Command(name) if matches!(name.as_str(), "kubeadm" | "kedge" | "pasted"))
}

fn finding(evidence: &Evidence, told: &Told<'_>) -> Finding {
    let place = &told.item.place;
    let proof: Vec<usize> = open_port(evidence, place).into_iter().chain(small_mtu(evidence, place)).collect();
    let certainty = if proof.is_empty() { Certainty::Possible } else { Certainty::Likely };
    let text =
        "the API server's port opens, and the handshake that follows with larger packets is not answered".to_owned();
    let repair = Repair::of(&[
        (
            "See which size still passes; the sum with 28 bytes is the MTU of the way",
            "ping -M do -s 1472 -c 2 APISERVER",
        ),
        ("Set that MTU on this machine's interface", "ip link set dev eth0 mtu 1400"),
        ("And tell the pod network, which needs 50 bytes (VXLAN) or 20 (IP in IP) less", ""),
    ]);
    let mut finding = told.finding(Subject::machine(place), certainty, text, repair);
    finding.evidence.extend(proof);
    finding
}

/// The API server's port as this machine sees it, where it opens.
fn open_port(evidence: &Evidence, place: &Place) -> Option<usize> {
    evidence.networks().find_map(|(index, item, fact)| match fact {
        NetworkFact::Probe { port: 6443, error: None, .. } if item.place == *place => Some(index),
        _ => None,
    })
}

fn small_mtu(evidence: &Evidence, place: &Place) -> Option<usize> {
    evidence.networks().find_map(|(index, item, fact)| match fact {
        NetworkFact::Interface { mtu, up: true, kind, .. }
            if item.place == *place && *mtu < 1500 && kind == "ethernet" =>
        {
            Some(index)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_handshake_that_hangs_is_found_and_a_refusal_is_not() {
        let hangs = "error execution phase preflight: couldn't validate the identity of the API Server: failed to request the cluster-info ConfigMap: Get \"https://10.0.0.1:6443/api/v1/namespaces/kube-public/configmaps/cluster-info?timeout=10s\": net/http: TLS handshake timeout";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", hangs)]).len(), 1);
        let refused = "failed to request the cluster-info ConfigMap: Get \"https://10.0.0.1:6443/\": dial tcp 10.0.0.1:6443: connect: connection refused";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", refused)]), [""; 0]);
        assert_eq!(found_among(&RULE, [logged("kubelet", hangs)]), [""; 0]);
    }
}
