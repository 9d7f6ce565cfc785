//! G1: machines cannot agree on routes: TCP port 179 between them is blocked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::evidence::{Evidence, Item, Place};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::events::{Word, last_words};
use crate::rules::network::detection::is_foreign;
use crate::rules::network::peers::{Peer, by_machine, closed, others, peers};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const PORT: u16 = 179;
const NOT_ESTABLISHED: &str = "BGP not established with ";

pub(super) const RULE: Rule = Rule {
    id: "G1",
    title: "machines cannot exchange routes over BGP",
    layer: Layer::Network,
    explains: &[
        Explains { ids: &["G6", "G14", "G25"], scope: Scope::Anywhere },
        Explains { ids: &["G3"], scope: Scope::SameNode },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for word in complaints(evidence) {
        let peers: Vec<IpAddr> = peers_of(word.message).filter(|peer| !is_foreign(evidence, *peer)).collect();
        if peers.is_empty() || found.iter().any(|known| known.place == Place::Node(word.node.to_owned())) {
            continue;
        }
        found.push(of_calico(evidence, &word, &peers));
    }
    let unable = |peer: &Peer| {
        !peer.session.is_empty() && peer.session != "Established" && matches!(peer.pods.as_str(), "silent" | "oneWay")
    };
    let pairs = peers(evidence).into_iter().filter(unable).collect();
    found.extend(by_machine(pairs).into_iter().map(|(machine, pairs)| of_kedge(evidence, &machine, &pairs)));
    found
}

/// Events in which calico's node agent says that sessions are missing.
pub(super) fn complaints(evidence: &Evidence) -> Vec<Word<'_>> {
    last_words(evidence, |_, message| message.contains("BIRD") && message.contains(NOT_ESTABLISHED))
}

/// The addresses of the peers in such a message.
pub(super) fn peers_of(message: &str) -> impl Iterator<Item = IpAddr> + '_ {
    let list = message.split_once(NOT_ESTABLISHED).map_or("", |(_, rest)| rest);
    let is_of_list = |letter: char| letter.is_ascii_hexdigit() || matches!(letter, '.' | ':' | ',');
    let list = list.split(move |letter| !is_of_list(letter)).next().unwrap_or_default();
    list.split(',').filter_map(|address| address.trim_end_matches('.').parse().ok())
}

fn of_calico(evidence: &Evidence, word: &Word<'_>, peers: &[IpAddr]) -> Finding {
    let item = &evidence.items[word.index];
    let mut proof = vec![word.index];
    let probes = closed(evidence, "tcp", PORT).into_iter().filter(|probe| probe.from == word.node);
    let probes: BTreeSet<usize> = probes.flat_map(|probe| probe.proof).collect();
    let certainty = if probes.is_empty() { Certainty::Likely } else { Certainty::Proven };
    proof.extend(probes);
    let list = peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let told = format!("{} has no BGP session with {list}: pods of those machines are not reached", word.subject);
    finding(item, word.node, certainty, told, proof)
}

fn of_kedge(evidence: &Evidence, machine: &str, pairs: &[Peer]) -> Finding {
    let why = pairs.iter().map(|pair| pair.session_error.as_str()).find(|error| !error.is_empty());
    let why = why.map_or(String::new(), |error| format!(" ({error})"));
    let told =
        format!("{machine} has no BGP session with {}{why}, and packets of pods do not arrive", others(machine, pairs));
    let proof: BTreeSet<usize> = pairs.iter().map(|pair| pair.index).collect();
    let item = &evidence.items[pairs[0].index];
    finding(item, machine, Certainty::Proven, told, proof.into_iter().collect())
}

fn finding(item: &Item, machine: &str, certainty: Certainty, told: String, proof: Vec<usize>) -> Finding {
    let repair = Repair::of(&[
        ("From each of the machines: does the port answer?", "nc -vz PEER 179"),
        (
            "Open TCP port 179 in both directions between all machines, in their own rules and in the provider's",
            "iptables -I INPUT -p tcp --dport 179 -j ACCEPT",
        ),
        ("Open IP-in-IP (protocol 4) or UDP port 4789 too, whichever carries the packets of pods", ""),
    ]);
    let subject = Subject::machine(&Place::Node(machine.to_owned()));
    Finding::failure(subject, item, certainty, told, proof, repair).on_node(machine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixtures::*;

    const TEXT: &str = "Readiness probe failed: 2026-07-22 10:00:00.1 [INFO][9] confd/health.go 180: Number of node(s) with BGP peering established = 0\ncalico/node is not ready: BIRD is not ready: BGP not established with 10.0.0.2,10.0.0.3\n";

    fn reachability(session: &str, pods: Value) -> Value {
        let view = json!({"node": "one", "peers": [{"node": "two", "address": "10.0.0.2", "asn": 64512,
            "session": session, "sessionError": "connection timed out", "route": {"kind": "native", "gateway": "10.0.0.2"}, "pods": pods}]});
        let mut node = node("one", json!([{"type": "Ready", "status": "True"}]));
        node["metadata"]["annotations"] = json!({"network.kedge.dev/reachability": view.to_string()});
        node
    }

    #[test]
    fn calico_s_words_are_found_and_its_other_words_are_not() {
        let event = |message: &str| event_of("Pod", "calico-node-x", "Unhealthy", message);
        assert_eq!(
            found(&RULE, [event(TEXT)]),
            ["Pod a/calico-node-x has no BGP session with 10.0.0.2, 10.0.0.3: pods of those machines are not reached"]
        );
        let old =
            "Readiness probe failed: calico/node is not ready: BIRD is not ready: BGP not established with 10.0.0.2";
        assert_eq!(found(&RULE, [event(old)]).len(), 1);
        assert_eq!(found(&RULE, [event("calico/node is not ready: felix is not ready")]), [""; 0]);
        assert_eq!(found(&RULE, [event(&TEXT.replace("10.0.0.2,10.0.0.3", "172.17.0.1"))]), [""; 0]);
    }

    #[test]
    fn a_session_that_kedge_misses_is_found_if_pods_suffer() {
        let silent = json!({"state": "silent"});
        assert_eq!(
            found(&RULE, [reachability("Active", silent.clone())]),
            ["two has no BGP session with one (connection timed out), and packets of pods do not arrive"]
        );
        assert_eq!(found(&RULE, [reachability("Established", silent.clone())]), [""; 0]);
        assert_eq!(found(&RULE, [reachability("Active", json!({"state": "reachable"}))]), [""; 0]);
        let down = node("two", json!([{"type": "Ready", "status": "Unknown"}]));
        assert_eq!(found(&RULE, [reachability("Active", silent), down]), [""; 0]);
    }
}
