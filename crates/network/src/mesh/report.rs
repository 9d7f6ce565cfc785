//! What is to be said of peers, nodes and paths. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kedge_bgp::{PeerReport, SessionState};

use super::MeshConfig;
use super::plan::{NodePeer, internal_ip};
use crate::mode::Way;
use crate::reach::{PeerReachability, PodPath, Reachability};

/// How long a session may take to come about before it is a problem.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) reason: &'static str,
    pub(super) text: String,
}

/// Everything that is wrong, the cause before what follows from it.
pub(super) fn plan_problems(
    config: &MeshConfig,
    nodes: &[impl AsRef<Node>],
    peers: &[PeerReport],
    known: &Reachability,
    now: Instant,
) -> Vec<Problem> {
    let mut problems = plan_conflicts(config, nodes);
    problems.extend(plan_complaint(peers, now).map(|text| Problem { reason: "BGPPeersNotEstablished", text }));
    let broken = known.peers.iter().filter(|peer| peer.pods.is_broken());
    problems.extend(broken.map(|peer| {
        let name = peer.node.as_deref().unwrap_or_default();
        Problem { reason: peer.pods.reason(), text: format!("node {name} ({}) {}", peer.address, peer.pods) }
    }));
    problems
}

/// Names and addresses that two machines have.
fn plan_conflicts(config: &MeshConfig, nodes: &[impl AsRef<Node>]) -> Vec<Problem> {
    let mut names_by_address: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
    let mut problems = Vec::new();
    for node in nodes.iter().map(AsRef::as_ref) {
        let (name, Some(address)) =
            (node.metadata.name.as_deref().unwrap_or_default(), internal_ip(node, config.node_ip.is_ipv6()))
        else {
            continue;
        };
        if name == config.node_name && address != config.node_ip {
            let text = format!(
                "the Node {name} has the address {address}, and this machine {}: another machine uses the same node name; \
                 give one of them another name",
                config.node_ip
            );
            problems.push(Problem { reason: "DuplicateNodeName", text });
        }
        names_by_address.entry(address).or_default().push(name);
    }
    for (address, mut names) in names_by_address.into_iter().filter(|(_, names)| names.len() > 1) {
        names.sort_unstable();
        let text = format!(
            "the nodes {} have the same address {address}: only one of them is reached; give each its own",
            names.join(" and ")
        );
        problems.push(Problem { reason: "DuplicateNodeAddress", text });
    }
    problems
}

/// What is to be said of peers that have not been established for a while.
fn plan_complaint(peers: &[PeerReport], now: Instant) -> Option<String> {
    let is_late = |peer: &&PeerReport| {
        let has_failed = peer.last_error.is_some();
        peer.state != SessionState::Established && (has_failed || now.duration_since(peer.since) > PATIENCE)
    };
    let said = peers.iter().filter(is_late).map(|peer| {
        let why = peer.last_error.as_deref().unwrap_or("no answer yet");
        format!("{} (AS {}) is {}: {why}", peer.address, peer.asn, peer.state.as_str())
    });
    let said: Vec<String> = said.collect();
    (!said.is_empty()).then(|| {
        let established = peers.iter().filter(|peer| peer.state == SessionState::Established).count();
        format!("{established} of {} BGP peers are established; {}", peers.len(), said.join("; "))
    })
}

/// What is known of every peer.
pub(super) fn plan_reachability(
    node_name: &str,
    node_peers: &[NodePeer],
    reports: &[PeerReport],
    ways: &BTreeMap<IpAddr, Way>,
    paths: &BTreeMap<IpAddr, PodPath>,
    now: Timestamp,
) -> Reachability {
    let blank = |address: IpAddr, asn: u32| PeerReachability {
        node: None,
        address,
        asn,
        session: None,
        session_error: None,
        route: ways.get(&address).copied().map(Into::into),
        pods: PodPath::Unknown,
        since: now,
    };
    let mut peers: BTreeMap<IpAddr, PeerReachability> = BTreeMap::new();
    for report in reports {
        let mut peer = blank(report.address, report.asn);
        // The states between are short, and change with every attempt.
        let state = match report.state {
            SessionState::Established => SessionState::Established,
            _ if report.last_error.is_some() => SessionState::Active,
            _ => SessionState::Connect,
        };
        peer.session = Some(state.as_str().to_owned());
        peer.session_error.clone_from(&report.last_error);
        peers.insert(report.address, peer);
    }
    for node in node_peers {
        let peer = peers.entry(node.address).or_insert_with(|| blank(node.address, 0));
        peer.node = Some(node.name.clone());
        let paths = node.gateways.iter().map(|gateway| paths.get(gateway).copied().unwrap_or_default());
        peer.pods = PodPath::of_all(paths);
    }
    Reachability { node: node_name.to_owned(), peers: peers.into_values().collect() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn report(last: u8, state: SessionState, last_error: Option<&str>, since: Instant) -> PeerReport {
        let (address, last_error) = (ip(last), last_error.map(str::to_owned));
        PeerReport { address, asn: 64512, state, since, last_error, routes: 0 }
    }

    #[test]
    fn peers_that_are_not_established_are_named() {
        let now = Instant::now();
        let peer = |last: u8, state, last_error: Option<&str>| report(last, state, last_error, now);
        let good = peer(2, SessionState::Established, None);
        assert_eq!(plan_complaint(&[], now), None);
        assert_eq!(plan_complaint(&[good.clone(), peer(3, SessionState::Connect, None)], now), None);
        let late =
            [good, peer(3, SessionState::Active, Some("no answer from 192.0.2.3:179: is TCP port 179 blocked?"))];
        let expected = "1 of 2 BGP peers are established; 192.0.2.3 (AS 64512) is Active: no answer from 192.0.2.3:179: \
                        is TCP port 179 blocked?";
        assert_eq!(plan_complaint(&late, now).as_deref(), Some(expected));
        let waiting = [peer(3, SessionState::Connect, None)];
        assert!(plan_complaint(&waiting, now + PATIENCE * 2).unwrap().contains("no answer yet"));
    }

    #[test]
    fn names_and_addresses_of_two_machines_are_named() {
        let node = |name: &str, address: &str| -> Arc<Node> {
            let addresses = json!([{"type": "InternalIP", "address": address}]);
            let node = json!({"metadata": {"name": name}, "status": {"addresses": addresses}});
            Arc::new(serde_json::from_value(node).unwrap())
        };
        let config = MeshConfig::new("a", ip(1), Vec::new());
        let check = |nodes: &[Arc<Node>], expected: &[&str]| {
            let found = plan_conflicts(&config, nodes);
            let shown: Vec<String> = found.iter().map(|one| format!("{} {}", one.reason, one.text)).collect();
            assert_eq!(shown.len(), expected.len(), "{shown:?}");
            for (shown, expected) in shown.iter().zip(expected) {
                assert!(shown.starts_with(expected), "{shown}");
            }
        };
        check(&[node("a", "192.0.2.1"), node("b", "192.0.2.2")], &[]);
        check(
            &[node("a", "192.0.2.9"), node("b", "192.0.2.2")],
            &["DuplicateNodeName the Node a has the address 192.0.2.9, and this machine 192.0.2.1"],
        );
        check(
            &[node("c", "192.0.2.2"), node("a", "192.0.2.1"), node("b", "192.0.2.2")],
            &["DuplicateNodeAddress the nodes b and c have the same address 192.0.2.2"],
        );
        check(
            &[node("a", "192.0.2.1"), node("b", "192.0.2.1")],
            &["DuplicateNodeAddress the nodes a and b have the same address 192.0.2.1"],
        );
    }

    #[test]
    fn sessions_and_paths_stand_together() {
        let now = Instant::now();
        let (b, router) = (ip(2), ip(254));
        let gateway: IpAddr = [10, 244, 2, 1].into();
        let nodes = [NodePeer { name: "b".to_owned(), address: b, addresses: vec![b], gateways: vec![gateway] }];
        let reports = [
            report(2, SessionState::Idle, Some("the peer closed the connection"), now),
            report(254, SessionState::OpenSent, None, now),
        ];
        let (ways, paths) = (BTreeMap::from([(b, Way::Via(b))]), BTreeMap::from([(gateway, PodPath::OneWay)]));
        let known = plan_reachability("a", &nodes, &reports, &ways, &paths, Timestamp::UNIX_EPOCH);
        let shown: Vec<String> = known
            .peers
            .iter()
            .map(|peer| format!("{:?} {} {:?} {:?}", peer.node, peer.address, peer.session, peer.pods))
            .collect();
        let expected =
            [format!("Some(\"b\") {b} Some(\"Active\") OneWay"), format!("None {router} Some(\"Connect\") Unknown")];
        assert_eq!(shown, expected);
        let config = MeshConfig::new("a", ip(1), Vec::new());
        let none: [Arc<Node>; 0] = [];
        let problems = plan_problems(&config, &none, &reports, &known, now);
        let reasons: Vec<&str> = problems.iter().map(|problem| problem.reason).collect();
        assert_eq!(reasons, ["BGPPeersNotEstablished", "PodNetworkUnreachable"]);
        assert!(problems[1].text.starts_with("node b (192.0.2.2) does not answer (ICMP echo), although"));
    }
}
