//! G24: the control plane's shared address is on no machine, or on two at once.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::evidence::{Evidence, Item, Place};
use crate::facts::{Fact, NetworkFact};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{list, text};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "G24",
    title: "the control plane's shared address is on no machine or on two",
    layer: Layer::System,
    explains: &[Explains { ids: &["A15", "E1", "E2"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (address, keepers) in shared_addresses(evidence) {
        let holders: Vec<(usize, &Item)> = holders(evidence, address);
        let item = &evidence.items[keepers[0]];
        let told = match holders.len() {
            0 if is_missed(evidence, address) => {
                format!(
                    "{address}, the control plane's shared address, is on none of the machines that were looked at, and does not answer"
                )
            }
            0 | 1 => continue,
            _ => {
                let names: Vec<&str> = holders.iter().map(|(_, item)| name(&item.place)).collect();
                format!("{address}, the control plane's shared address, is on {} at once", names.join(" and "))
            }
        };
        let proof = keepers.iter().copied().chain(holders.iter().map(|(index, _)| *index)).collect();
        let repair = Repair::of(&[
            (
                "Who has it, and what do those say that give it?",
                "ip -br address; crictl logs $(crictl ps -q --name kube-vip); journalctl -u keepalived",
            ),
            (
                "Let the machines hear each other: VRRP (protocol 112) for keepalived, ARP for kube-vip, TCP port 6443 for its lease",
                "",
            ),
            ("On a machine that should not have it", &format!("ip address del {address}/32 dev eth0")),
        ]);
        let subject = Subject::new("Address", address);
        found.push(Finding::failure(subject, item, Certainty::Likely, told, proof, repair));
    }
    found
}

/// Addresses that pods of kube-vip keep, with the items of those pods.
fn shared_addresses(evidence: &Evidence) -> BTreeMap<&str, Vec<usize>> {
    let mut found: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let manifests = evidence.manifests().filter_map(|(index, _, manifest)| Some((index, manifest.pod.as_ref().ok()?)));
    let pods = evidence.objects("Pod").map(|(index, _, pod)| (index, pod));
    for (index, pod) in manifests.chain(pods) {
        if let Some(address) = kept_address(pod) {
            found.entry(address).or_default().push(index);
        }
    }
    found
}

fn kept_address(pod: &Value) -> Option<&str> {
    let containers = list(&pod["spec"]["containers"]).filter(|container| text(&container["name"]) == "kube-vip");
    let mut variables = containers.flat_map(|container| list(&container["env"]));
    let variable = variables.find(|variable| matches!(text(&variable["name"]), "address" | "vip_address"))?;
    variable["value"].as_str().filter(|address| address.parse::<std::net::IpAddr>().is_ok())
}

fn holders<'a>(evidence: &'a Evidence, address: &str) -> Vec<(usize, &'a Item)> {
    let has = |fact: &NetworkFact| {
        matches!(fact, NetworkFact::Interface { addresses, .. }
            if addresses.iter().any(|own| own.split('/').next() == Some(address)))
    };
    let mut found: Vec<(usize, &Item)> = Vec::new();
    for (index, item, _) in evidence.networks().filter(|(_, _, fact)| has(fact)) {
        if !found.iter().any(|(_, known)| known.place == item.place) {
            found.push((index, item));
        }
    }
    found
}

/// Whether a call to the address failed for want of anybody who has it.
fn is_missed(evidence: &Evidence, address: &str) -> bool {
    let calls = evidence.pick(|fact| match fact {
        Fact::Call { target, error: Some(error) } if target.contains(address) => Some(error.to_lowercase()),
        Fact::Network(NetworkFact::Probe { to, error: Some(error), .. }) if to == address => Some(error.to_lowercase()),
        _ => None,
    });
    let mut calls = calls;
    calls.any(|(_, _, error)| {
        ["no route", "unreachable", "no answer", "timed out", "timeout"].iter().any(|word| error.contains(word))
    })
}

fn name(place: &Place) -> &str {
    match place {
        Place::Node(name) => name,
        Place::Cluster => "",
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn keeper() -> Item {
        let env = json!([{"name": "vip_arp", "value": "true"}, {"name": "address", "value": "10.0.0.100"}]);
        let pod = pod("kube-system", "kube-vip", json!({"containers": [{"name": "kube-vip", "env": env}]}), json!({}));
        manifest("/etc/kubernetes/manifests/kube-vip.yaml", Ok(pod))
    }

    fn holder(node: &str) -> Item {
        Item {
            place: Place::Node(node.to_owned()),
            ..interface("eth0", 1500, "ethernet", &["10.0.0.1/24", "10.0.0.100/32"])
        }
    }

    #[test]
    fn an_address_on_two_machines_or_on_none_is_found() {
        assert_eq!(
            found_among(&RULE, [keeper(), holder("one"), holder("two")]),
            ["10.0.0.100, the control plane's shared address, is on one and two at once"]
        );
        let silent = probe("10.0.0.100", "tcp", 6443, Some("No route to host (os error 113)"));
        assert_eq!(found_among(&RULE, [keeper(), silent]).len(), 1);
    }

    #[test]
    fn one_holder_and_one_that_is_elsewhere_are_right() {
        assert_eq!(found_among(&RULE, [keeper(), holder("one")]), [""; 0]);
        assert_eq!(found_among(&RULE, [keeper(), interface("eth0", 1500, "ethernet", &["10.0.0.2/24"])]), [""; 0]);
        assert_eq!(found_among(&RULE, [keeper(), probe("10.0.0.100", "tcp", 6443, None)]), [""; 0]);
    }
}
