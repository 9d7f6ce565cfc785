//! G7: pods send packets that are larger than what passes between machines: small ones arrive, large ones hang.

use std::collections::BTreeSet;

use crate::evidence::{Evidence, Item, Place};
use crate::facts::{MeasureFact, NetworkFact};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::network::peers::{Peer, by_machine, others, peers};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "G7",
    title: "packets of pods are too large for the way between machines",
    layer: Layer::Network,
    explains: &[Explains { ids: &["G14", "G25", "H4", "H8"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let pairs = peers(evidence).into_iter().filter(|peer| peer.sizes.is_some()).collect();
    let mut found: Vec<Finding> =
        by_machine(pairs).into_iter().map(|(machine, pairs)| of_kedge(evidence, &machine, &pairs)).collect();
    found.extend(evidence.networks().filter_map(|(index, item, fact)| of_tunnel(evidence, index, item, fact)));
    found.extend(evidence.measures("path_mtu").filter_map(|(index, item, measure)| of_path(index, item, measure)));
    found
}

fn of_kedge(evidence: &Evidence, machine: &str, pairs: &[Peer]) -> Finding {
    let (wanted, passes) = pairs[0].sizes.unwrap_or_default();
    let told = format!(
        "between {machine} and {}, packets of {passes} bytes arrive and those of {wanted}, which pods send, do not",
        others(machine, pairs)
    );
    let proof: BTreeSet<usize> = pairs.iter().map(|pair| pair.index).collect();
    finding(&evidence.items[pairs[0].index], machine, Certainty::Proven, told, proof.into_iter().collect())
}

/// A tunnel whose packets do not fit into those of the interface that carries them.
fn of_tunnel(evidence: &Evidence, index: usize, item: &Item, fact: &NetworkFact) -> Option<Finding> {
    let NetworkFact::Interface { name, mtu, kind, up: true, .. } = fact else { return None };
    let overhead = match kind.as_str() {
        "vxlan" | "geneve" => 50,
        "ipip" => 20,
        "wireguard" => 60,
        _ => return None,
    };
    let (carrier_index, carrier, room) = carrier(evidence, &item.place)?;
    if *mtu + overhead <= room {
        return None;
    }
    let told = format!(
        "{name} lets {mtu} bytes in and adds {overhead}, and {carrier}, which carries it, takes {room}: {} at most fit",
        room.saturating_sub(overhead)
    );
    let Place::Node(machine) = &item.place else { return None };
    Some(finding(item, machine, Certainty::Likely, told, vec![index, carrier_index]))
}

/// The interface of the default route, and its MTU.
fn carrier<'a>(evidence: &'a Evidence, place: &Place) -> Option<(usize, &'a str, u32)> {
    let own = || evidence.networks().filter(|(_, item, _)| item.place == *place);
    let default = own().find_map(|(_, _, fact)| match fact {
        NetworkFact::Route { to, interface, .. } if to == "default" || to == "0.0.0.0/0" => Some(interface.as_str()),
        _ => None,
    })?;
    own().find_map(|(index, _, fact)| match fact {
        NetworkFact::Interface { name, mtu, .. } if name == default => Some((index, name.as_str(), *mtu)),
        _ => None,
    })
}

/// The kernel has learnt that less passes than the interface lets out.
fn of_path(index: usize, item: &Item, measure: &MeasureFact) -> Option<Finding> {
    let limit = measure.limit.filter(|limit| measure.value < *limit)?;
    let Place::Node(machine) = &item.place else { return None };
    let told = format!(
        "from {machine} to {}, packets of {} bytes pass, and the interface lets {limit} out",
        measure.of, measure.value
    );
    Some(finding(item, machine, Certainty::Likely, told, vec![index]))
}

fn finding(item: &Item, machine: &str, certainty: Certainty, told: String, proof: Vec<usize>) -> Finding {
    let repair = Repair::of(&[
        ("See which size passes; with 28 bytes more it is the MTU of the way", "ping -M do -c 2 -s 1422 PEER"),
        (
            "Give the machines' interfaces one MTU, or the pod network what is left of the smallest: 50 bytes less for VXLAN, 20 for IP in IP, 60 to 80 for WireGuard",
            "",
        ),
        (
            "For calico",
            "kubectl -n kube-system patch configmap calico-config --type merge -p '{\"data\":{\"veth_mtu\":\"1400\"}}'",
        ),
        ("Start pods again afterwards: their interfaces keep the size that they were made with", ""),
    ]);
    let subject = Subject::machine(&Place::Node(machine.to_owned()));
    Finding::failure(subject, item, certainty, told, proof, repair).on_node(machine)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_tunnel_larger_than_its_carrier_is_found() {
        let machine = |mtu| {
            [
                route("default", Some("10.0.0.254"), "eth0"),
                interface("eth0", 1500, "ethernet", &["10.0.0.1/24"]),
                interface("flannel.1", mtu, "vxlan", &["10.244.0.0/32"]),
            ]
        };
        assert_eq!(
            found_among(&RULE, machine(1500)),
            ["flannel.1 lets 1500 bytes in and adds 50, and eth0, which carries it, takes 1500: 1450 at most fit"]
        );
        assert_eq!(found_among(&RULE, machine(1450)), [""; 0]);
        // Nobody knows what carries it.
        assert_eq!(found_among(&RULE, [interface("flannel.1", 1500, "vxlan", &[])]), [""; 0]);
    }

    #[test]
    fn what_kedge_measured_and_what_the_kernel_learnt_is_found() {
        let view = json!({"node": "one", "peers": [{"node": "two", "address": "10.0.0.2", "asn": 1,
            "pods": {"state": "mtuTooSmall", "wanted": 1450, "passes": 1350}}]});
        assert_eq!(
            found_among(&RULE, [document("reachability", view)]),
            ["between two and one, packets of 1350 bytes arrive and those of 1450, which pods send, do not"]
        );
        assert_eq!(found_among(&RULE, [measured("path_mtu", "two", 1400.0, Some(1500.0))]).len(), 1);
        assert_eq!(found_among(&RULE, [measured("path_mtu", "two", 1500.0, Some(1500.0))]), [""; 0]);
    }
}
