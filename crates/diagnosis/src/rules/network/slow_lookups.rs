//! G25: names resolve most of the time, and now and then after five seconds only: packets of questions get lost.

use std::collections::BTreeSet;

use crate::evidence::{Evidence, Place};
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::{condition, text};
use crate::rules::network::lookups::{failed_lookups, is_dns, is_recent};
use crate::rules::{Layer, Rule};

/// Entries that could not be made since the machine started, above which it is no chance.
const MANY: f64 = 1000.0;

pub(super) const RULE: Rule =
    Rule { id: "G25", title: "names resolve late now and then", layer: Layer::Dns, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let races: Vec<_> =
        evidence.measures("conntrack_insert_failed").filter(|(_, _, measure)| measure.value >= MANY).collect();
    let lines = failed_lookups(evidence).filter(|(_, item, _)| is_recent(evidence, item));
    let lines: Vec<usize> = lines.map(|(index, _, _)| index).collect();
    let mut found = Vec::new();
    if let (Some(first), true) = (lines.first(), has_ready_dns(evidence)) {
        let told = format!("{} lookups of pods timed out, although the cluster's DNS is ready", lines.len());
        let certainty = if races.is_empty() { Certainty::Possible } else { Certainty::Likely };
        let proof = lines.iter().copied().chain(races.iter().map(|(index, _, _)| *index)).collect();
        let subject = Subject::new("Cluster", "names");
        let mut finding = Finding::failure(subject, &evidence.items[*first], certainty, told, proof, repair());
        finding.place = Place::Cluster;
        found.push(finding);
        return found;
    }
    for (index, item, measure) in races {
        let told = format!(
            "the kernel lost {} packets to a race of connections that start at once, as lookups do",
            measure.value
        );
        let subject = Subject::machine(&item.place);
        let mut finding = Finding::failure(subject, item, Certainty::Possible, told, vec![index], repair());
        finding.severity = Severity::Warning;
        found.push(finding);
    }
    found
}

fn has_ready_dns(evidence: &Evidence) -> bool {
    let ready: BTreeSet<&str> = evidence
        .objects("Pod")
        .filter(|(_, _, pod)| is_dns(pod) && condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True"))
        .map(|(_, _, pod)| text(&pod["metadata"]["name"]))
        .collect();
    !ready.is_empty()
}

fn repair() -> Repair {
    Repair::of(&[
        ("See whether the kernel counts lost entries", "conntrack -S | grep -o 'insert_failed=[0-9]*'"),
        ("Let a cache on each machine answer (NodeLocal DNSCache)", "kubectl apply -f nodelocaldns.yaml"),
        ("Until then: one question after the other", "dnsConfig: {options: [{name: single-request-reopen}]}"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn dns(ready: &str) -> Item {
        let mut pod = pod(
            "kube-system",
            "coredns-1",
            json!({"nodeName": "one"}),
            json!({"conditions": [{"type": "Ready", "status": ready}]}),
        );
        pod["metadata"]["labels"] = json!({"k8s-app": "kube-dns"});
        Item { time: None, place: Place::Cluster, origin: String::new(), fact: Fact::Object(pod) }
    }

    #[test]
    fn lookups_that_time_out_beside_a_ready_dns_are_found() {
        let line = || {
            container_logged(
                "web",
                "lookup db.a.svc.cluster.local on 10.96.0.10:53: read udp 10.244.0.9:41000->10.96.0.10:53: i/o timeout",
            )
        };
        assert_eq!(
            found_among(&RULE, [dns("True"), line(), line()]),
            ["2 lookups of pods timed out, although the cluster's DNS is ready"]
        );
        assert_eq!(found_among(&RULE, [dns("False"), line()]), [""; 0]);
        assert_eq!(found_among(&RULE, [dns("True"), ago(line(), 7200)]), [""; 0]);
        let outside = container_logged(
            "coredns",
            "[ERROR] plugin/errors: 2 example.com. A: read udp 10.244.0.2:4000->8.8.8.8:53: i/o timeout",
        );
        assert_eq!(found_among(&RULE, [dns("True"), outside]), [""; 0]);
    }

    #[test]
    fn many_lost_entries_are_foretold_and_a_few_are_not() {
        assert_eq!(found_among(&RULE, [measured("conntrack_insert_failed", "", 5000.0, None)]).len(), 1);
        assert_eq!(found_among(&RULE, [measured("conntrack_insert_failed", "", 20.0, None)]), [""; 0]);
    }
}
