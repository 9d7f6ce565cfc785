//! E22: the API server cannot reach a kubelet: logs and exec fail, everything else works.

use crate::evidence::{Evidence, Place};
use crate::facts::NetworkFact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::lines::{one_of_each_machine, says, told};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "E22", title: "a kubelet's port cannot be reached", layer: Layer::Network, explains: &[], find };

const FORMS: &[&[&str]] = &[
    &[":10250: connect: no route to host"],
    &[":10250: i/o timeout"],
    &[":10250: connect: connection refused"],
    &[":10250: connect: connection timed out"],
    &["error dialing backend", ":10250"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let probes = evidence.networks().filter_map(|(index, item, fact)| match fact {
        NetworkFact::Probe { to, port: 10250, error: Some(error), .. } => Some((index, item, to, error)),
        _ => None,
    });
    let probed = probes.map(|(index, item, to, error)| {
        let text = match item.place {
            Place::Cluster => format!("the API server cannot reach port 10250 of {to}: {error}"),
            Place::Node(_) => format!("port 10250 of {to} cannot be reached from here: {error}"),
        };
        let repair = if error.contains("refused") { repair_of_refusal() } else { repair() };
        let mut finding =
            Finding::failure(Subject::new("Node", to), item, Certainty::Proven, text, vec![index], repair);
        finding.place = Place::Node(to.clone());
        finding
    });
    let told = told(evidence, |line| says(&line.text, FORMS), |_| false);
    let told: Vec<Finding> = told
        .iter()
        .map(|told| {
            let text = format!("the API server cannot reach a kubelet: {}", told.line.text.trim());
            told.finding(Subject::machine(&told.item.place), Certainty::Likely, text, repair())
        })
        .collect();
    one_of_each_machine(probed.chain(told))
}

/// Who refuses is there, and nothing listens: that is no firewall.
fn repair_of_refusal() -> Repair {
    Repair::of(&[
        ("On that machine: does the kubelet run, and on which address does it listen?", "kedge doctor node"),
        ("See whether the address is the right one", "kubectl get nodes -o wide"),
    ])
}

fn repair() -> Repair {
    Repair::of(&[
        ("See which address the API server uses, and whether it is the right one", "kubectl get nodes -o wide"),
        ("From a control plane, try it", "nc -vz ADDRESS 10250"),
        ("Open the port on the node", "firewall-cmd --permanent --add-port=10250/tcp && firewall-cmd --reload"),
        ("A wrong InternalIP is mended by the kubelet's --node-ip", ""),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn failed_calls_and_probes_are_found() {
        let line = "Error from server: Get \"https://10.0.0.2:10250/containerLogs/a/web/c\": dial tcp 10.0.0.2:10250: connect: no route to host";
        assert_eq!(found_among(&RULE, [pasted("kubectl", line)]).len(), 1);
        let probe = |error: Option<&str>| {
            let (to, protocol, error) = ("two".to_owned(), "tcp".to_owned(), error.map(str::to_owned));
            on("one", Fact::Network(crate::facts::NetworkFact::Probe { to, protocol, port: 10250, error }))
        };
        assert_eq!(found_among(&RULE, [probe(Some("timed out"))]).len(), 1);
        assert_eq!(found_among(&RULE, [probe(None)]), [""; 0]);
        let through_the_api = Item { place: Place::Cluster, ..probe(Some("no route to host")) };
        assert_eq!(
            found_among(&RULE, [through_the_api]),
            ["the API server cannot reach port 10250 of two: no route to host"]
        );
        let other = "dial tcp 10.0.0.2:6443: connect: no route to host";
        assert_eq!(found_among(&RULE, [pasted("kubectl", other)]), [""; 0]);
    }
}
