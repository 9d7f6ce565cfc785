//! G6: packets of the tunnel between machines are lost: pods reach their own machine's pods only, and names only where
//! the cluster's DNS runs.

use std::collections::BTreeSet;

use crate::evidence::{Evidence, Place};
use crate::facts::LogSource;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;
use crate::rules::network::lookups::{failed_lookups, is_dns};
use crate::rules::network::peers::{Peer, by_machine, closed, others, peers};
use crate::rules::{Explains, Layer, Rule, Scope};

/// Flannel's port for VXLAN, and everybody else's.
const PORTS: [u16; 2] = [8472, 4789];

pub(super) const RULE: Rule = Rule {
    id: "G6",
    title: "packets of pods are lost between machines",
    layer: Layer::Network,
    explains: &[Explains { ids: &["G14", "G25"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let lost = |peer: &Peer| {
        matches!(peer.pods.as_str(), "silent" | "oneWay") && matches!(peer.session.as_str(), "" | "Established")
    };
    let pairs = peers(evidence).into_iter().filter(lost).collect();
    let mut found: Vec<Finding> =
        by_machine(pairs).into_iter().map(|(machine, pairs)| of_kedge(evidence, &machine, &pairs)).collect();
    found.extend(of_probes(evidence));
    if found.is_empty() {
        found.extend(of_lookups(evidence));
    }
    found
}

fn of_kedge(evidence: &Evidence, machine: &str, pairs: &[Peer]) -> Finding {
    let way = match pairs[0].route.as_str() {
        "vxlan" => "in VXLAN packets, so UDP between the machines is blocked",
        _ => "as they are, so something between the machines drops packets of addresses that it does not know",
    };
    let told =
        format!("packets of pods between {machine} and {} do not arrive; they travel {way}", others(machine, pairs));
    let proof: BTreeSet<usize> = pairs.iter().map(|pair| pair.index).collect();
    let item = &evidence.items[pairs[0].index];
    let subject = Subject::machine(&Place::Node(machine.to_owned()));
    let proof = proof.into_iter().collect();
    Finding::failure(subject, item, Certainty::Likely, told, proof, repair()).on_node(machine)
}

/// A port of the tunnel that the other machine refuses: nothing takes its packets there.
fn of_probes(evidence: &Evidence) -> Vec<Finding> {
    let probes =
        PORTS.into_iter().flat_map(|port| closed(evidence, "udp", port).into_iter().map(move |probe| (port, probe)));
    let finding = |(port, probe): (u16, crate::rules::network::peers::Closed<'_>)| {
        let told = format!(
            "{} refuses UDP port {port}, to which {} sends packets of pods ({})",
            probe.to, probe.from, probe.error
        );
        let subject = Subject::machine(&Place::Node(probe.to.to_owned()));
        let item = &evidence.items[probe.proof[0]];
        Finding::failure(subject, item, Certainty::Likely, told, probe.proof, repair())
    };
    probes.map(finding).collect()
}

/// Pods fail to look names up everywhere but where the cluster's DNS runs.
fn of_lookups(evidence: &Evidence) -> Option<Finding> {
    let pods = || evidence.objects("Pod");
    let of_dns: BTreeSet<&str> =
        pods().filter(|(_, _, pod)| is_dns(pod)).map(|(_, _, pod)| text(&pod["spec"]["nodeName"])).collect();
    let mut proof = Vec::new();
    for (index, item, line) in failed_lookups(evidence) {
        let LogSource::Container { namespace, pod, .. } = &line.source else { continue };
        let subject = Subject { kind: "Pod".to_owned(), namespace: namespace.clone(), name: pod.clone() };
        let of_object = evidence.object(&subject).map_or("", |(_, _, pod)| text(&pod["spec"]["nodeName"]));
        let node = match &item.place {
            Place::Node(name) => name.as_str(),
            Place::Cluster => of_object,
        };
        if node.is_empty() || of_dns.contains(node) {
            return None;
        }
        proof.push(index);
    }
    if of_dns.iter().all(|node| node.is_empty()) || proof.is_empty() {
        return None;
    }
    let list = of_dns.iter().copied().collect::<Vec<_>>().join(", ");
    let told = format!("only pods on machines without the cluster's DNS, which runs on {list}, fail to look names up");
    let subject = Subject::new("Cluster", "pod network");
    let item = &evidence.items[proof[0]];
    Some(Finding::failure(subject, item, Certainty::Possible, told, proof, repair()))
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "See whether they leave one machine and arrive at the other",
            "tcpdump -ni any 'udp port 4789 or udp port 8472'",
        ),
        (
            "Open the tunnel's UDP port between all machines (8472 flannel and cilium, 4789 calico and Kedge)",
            "iptables -I INPUT -p udp -m multiport --dports 4789,8472 -j ACCEPT",
        ),
        ("Where the provider drops such packets: take routes instead of a tunnel, or another port", ""),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn reachability(session: Option<&str>, state: &str) -> Item {
        let view = json!({"node": "one", "peers": [{"node": "two", "address": "10.0.0.2", "asn": 1, "session": session,
            "route": {"kind": "vxlan", "node": "10.0.0.2"}, "pods": {"state": state}}]});
        document("reachability", view)
    }

    #[test]
    fn silent_peers_are_found_unless_their_session_is_missing() {
        assert_eq!(found_among(&RULE, [reachability(None, "silent")]).len(), 1);
        assert_eq!(found_among(&RULE, [reachability(Some("Established"), "oneWay")]).len(), 1);
        assert_eq!(found_among(&RULE, [reachability(Some("Active"), "silent")]), [""; 0]);
        assert_eq!(found_among(&RULE, [reachability(None, "reachable"), reachability(None, "unknown")]), [""; 0]);
    }

    #[test]
    fn a_refused_tunnel_is_found() {
        let refused = probe("two", "udp", 8472, Some("Connection refused (os error 111)"));
        assert_eq!(found_among(&RULE, [refused.clone(), probe("two", "tcp", 10250, None)]).len(), 1);
        assert_eq!(found_among(&RULE, [refused]), [""; 0]);
    }

    #[test]
    fn lookups_that_fail_only_away_from_dns_are_found() {
        let object =
            |value| Item { time: None, place: Place::Cluster, origin: String::new(), fact: Fact::Object(value) };
        let mut dns = pod("kube-system", "coredns-1", json!({"nodeName": "two"}), json!({"phase": "Running"}));
        dns["metadata"]["labels"] = json!({"k8s-app": "kube-dns"});
        let line = || {
            container_logged("web", "lookup db on 10.96.0.10:53: read udp 10.244.1.5:4000->10.96.0.10:53: i/o timeout")
        };
        assert_eq!(found_among(&RULE, [object(dns.clone()), line()]).len(), 1);
        // A pod that a policy keeps from asking says nothing of the tunnel.
        let web = object(pod("kube-system", "web-one", json!({"nodeName": "one"}), json!({})));
        let policy = object(json!({"kind": "NetworkPolicy", "metadata": {"namespace": "kube-system", "name": "p"},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": []}}));
        assert_eq!(found_among(&RULE, [object(dns.clone()), line(), web, policy]), [""; 0]);
        dns["spec"]["nodeName"] = json!("one");
        assert_eq!(found_among(&RULE, [object(dns), line()]), [""; 0]);
    }
}
