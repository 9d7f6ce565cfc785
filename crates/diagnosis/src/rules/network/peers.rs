//! What machines know of their ways to each other: as Kedge's network tells it, and as probes show it.
//!
//! Invariant: a way that fails because the other machine is down is no trouble of the network, and is not told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use crate::evidence::{Evidence, Place};
use crate::facts::NetworkFact;
use crate::object::{condition, list, text};

/// Where a Node has what its network knows of its peers.
const ANNOTATION: &str = "network.kedge.dev/reachability";

/// One machine's view of another.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Who looks.
    pub(super) from: String,
    /// The other, by its Node's name or its address.
    pub(super) to: String,
    /// The item that tells.
    pub(super) index: usize,
    /// The state of the BGP session; empty where none is wanted.
    pub(super) session: String,
    /// Why there is no session.
    pub(super) session_error: String,
    /// `native` or `vxlan`.
    pub(super) route: String,
    /// What became of packets: `reachable`, `silent`, `oneWay`, `mtuTooSmall`, `unknown`.
    pub(super) pods: String,
    /// The largest packet wanted and the largest that passes, where they differ.
    pub(super) sizes: Option<(u64, u64)>,
}

/// Every view of a peer whose machine is up, each pair of machines once for each side that looked.
pub(super) fn peers(evidence: &Evidence) -> Vec<Peer> {
    let down = down_nodes(evidence);
    let mut told: BTreeMap<(String, String), Peer> = BTreeMap::new();
    for (index, _, node) in evidence.objects("Node") {
        let Some(annotation) = node["metadata"]["annotations"][ANNOTATION].as_str() else { continue };
        // Most are long and say that all is well.
        if is_troubled(annotation) && !down.contains(text(&node["metadata"]["name"])) {
            let view = serde_json::from_str(annotation).unwrap_or_default();
            told.extend(views(&view, index).map(|peer| ((peer.from.clone(), peer.to.clone()), peer)));
        }
    }
    for (index, _, view) in evidence.documents("reachability") {
        told.extend(views(view, index).map(|peer| ((peer.from.clone(), peer.to.clone()), peer)));
    }
    told.into_values().filter(|peer| !down.contains(peer.to.as_str())).collect()
}

fn is_troubled(annotation: &str) -> bool {
    ["silent", "oneWay", "mtuTooSmall", "Idle", "Connect", "Active", "OpenSent", "OpenConfirm"]
        .iter()
        .any(|word| annotation.contains(&format!("\"{word}\"")))
}

fn views(view: &Value, index: usize) -> impl Iterator<Item = Peer> {
    list(&view["peers"]).map(move |peer| {
        let sizes = peer["pods"]["wanted"].as_u64().zip(peer["pods"]["passes"].as_u64());
        Peer {
            from: text(&view["node"]).to_owned(),
            to: peer["node"].as_str().unwrap_or_else(|| text(&peer["address"])).to_owned(),
            index,
            session: text(&peer["session"]).to_owned(),
            session_error: text(&peer["sessionError"]).to_owned(),
            route: text(&peer["route"]["kind"]).to_owned(),
            pods: text(&peer["pods"]["state"]).to_owned(),
            sizes,
        }
    })
}

/// Nodes that are not there for anybody: their agents are silent.
fn down_nodes(evidence: &Evidence) -> BTreeSet<&str> {
    let nodes = evidence
        .objects("Node")
        .filter(|(_, _, node)| condition(node, "Ready").is_some_and(|ready| ready["status"] == "Unknown"));
    nodes.map(|(_, _, node)| text(&node["metadata"]["name"])).collect()
}

/// A port of another machine that does not answer although another port there does.
pub(super) struct Closed<'a> {
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) error: &'a str,
    /// The failed probe, and the one that succeeded.
    pub(super) proof: Vec<usize>,
}

/// Probes of a port that failed.
pub(super) fn closed<'a>(evidence: &'a Evidence, protocol: &str, port: u16) -> Vec<Closed<'a>> {
    let mut found = Vec::new();
    for (index, item, fact) in evidence.networks() {
        let NetworkFact::Probe { to, protocol: tried, port: at, error: Some(error) } = fact else { continue };
        let Place::Node(from) = &item.place else { continue };
        if tried != protocol || *at != port {
            continue;
        }
        let answered = evidence.networks().find(|(_, other, fact)| {
            other.place == item.place && matches!(fact, NetworkFact::Probe { to: same, error: None, .. } if same == to)
        });
        if let Some((other, _, _)) = answered {
            found.push(Closed { from, to, error, proof: vec![index, other] });
        }
    }
    found
}

/// The machines that troubled pairs have in common: as few as explain every pair, each with its pairs.
pub(super) fn by_machine(mut pairs: Vec<Peer>) -> Vec<(String, Vec<Peer>)> {
    let mut found = Vec::new();
    while !pairs.is_empty() {
        let mut others: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for pair in &pairs {
            others.entry(&pair.from).or_default().insert(&pair.to);
            others.entry(&pair.to).or_default().insert(&pair.from);
        }
        // Of several with as many others, the one that is looked at by most, then the first by name.
        let worst = others.iter().max_by_key(|(name, with)| {
            let is_looked_at = pairs.iter().filter(|pair| pair.to == **name).count();
            (with.len(), is_looked_at, std::cmp::Reverse(**name))
        });
        let Some(worst) = worst.map(|(name, _)| (*name).to_owned()) else { break };
        let (own, rest) = pairs.into_iter().partition(|pair| pair.from == worst || pair.to == worst);
        found.push((worst, own));
        pairs = rest;
    }
    found
}

/// The others of one machine's pairs, as a sentence lists them.
pub(super) fn others(machine: &str, pairs: &[Peer]) -> String {
    const MOST: usize = 5;
    let names: BTreeSet<&str> =
        pairs.iter().flat_map(|pair| [pair.from.as_str(), pair.to.as_str()]).filter(|name| *name != machine).collect();
    let shown = names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    if names.len() > MOST { format!("{shown} and {} more", names.len() - MOST) } else { shown }
}

/// Addresses by which Nodes are reached.
pub(super) fn node_addresses(evidence: &Evidence) -> BTreeMap<IpAddr, &str> {
    let nodes = evidence.objects("Node").flat_map(|(_, _, node)| {
        let addresses = list(&node["status"]["addresses"]).filter(|address| address["type"] == "InternalIP");
        addresses.filter_map(|address| Some((text(&address["address"]).parse().ok()?, text(&node["metadata"]["name"]))))
    });
    nodes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(from: &str, to: &str) -> Peer {
        let none = String::new;
        Peer {
            from: from.to_owned(),
            to: to.to_owned(),
            index: 0,
            session: none(),
            session_error: none(),
            route: none(),
            pods: "silent".to_owned(),
            sizes: None,
        }
    }

    #[test]
    fn one_machine_that_nobody_reaches_is_one_trouble() {
        let pairs = vec![pair("a", "c"), pair("b", "c"), pair("c", "a"), pair("c", "b"), pair("d", "e")];
        let found = by_machine(pairs);
        let names: Vec<_> = found.iter().map(|(name, own)| (name.as_str(), own.len())).collect();
        assert_eq!(names, [("c", 4), ("e", 1)]);
        assert_eq!(others("c", &found[0].1), "a, b");
    }
}
