//! G12: no address is left for a pod on a machine; and machines that may run more pods than they have addresses.

use ipnet::Ipv4Net;
use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity};
use crate::object::{subject, text};
use crate::rules::network::sandbox::refused_networks;
use crate::rules::{Explains, Layer, Rule, Scope};

const FORMS: &[&[&str]] = &[
    &["failed to request IPv4 addresses"],
    &["failed to request IPv6 addresses"],
    &["no IP addresses available in range set"],
    &["no more IPs"],
    &["failed to allocate for range"],
    &["No more free affine blocks"],
];
/// The network's own address, the bridge's, and the one for all.
const TAKEN: u64 = 3;

pub(super) const RULE: Rule = Rule {
    id: "G12",
    title: "no address is left for a pod",
    layer: Layer::Network,
    explains: &[Explains { ids: &["W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        ("On the machine: addresses that belong to pods which are gone", "ls /var/lib/cni/networks/*; crictl pods"),
        (
            "For calico: release blocks that nobody uses, or add a pool",
            "calicoctl ipam check; calicoctl get ippools -o wide",
        ),
        ("Let fewer pods run on the machine, or give it a larger range", ""),
    ]);
    let mut found = refused_networks(evidence, FORMS, &repair, |message| {
        format!("the plugin that gives addresses to pods has none left: {}", tail(message))
    });
    for (index, item, node) in evidence.objects("Node") {
        let Some((pods, addresses)) = shortage(node) else { continue };
        let told = format!(
            "{} may run {pods} pods, and its range {} has {addresses} addresses for them",
            text(&node["metadata"]["name"]),
            text(&node["spec"]["podCIDR"])
        );
        let repair = Repair::of(&[("Let fewer pods run there", "maxPods in /var/lib/kubelet/config.yaml")]);
        let mut finding = Finding::failure(subject(node), item, Certainty::Proven, told, vec![index], repair)
            .on_node(text(&node["metadata"]["name"]));
        finding.severity = Severity::Warning;
        found.push(finding);
    }
    found
}

/// How many pods a node may run and how many addresses it has, where the latter are fewer.
fn shortage(node: &Value) -> Option<(u64, u64)> {
    // Calico gives addresses from pools of its own.
    if node["metadata"]["annotations"]["projectcalico.org/IPv4Address"].is_string() {
        return None;
    }
    let range: Ipv4Net = text(&node["spec"]["podCIDR"]).parse().ok()?;
    let pods: u64 = text(&node["status"]["allocatable"]["pods"]).parse().ok()?;
    let addresses = (1_u64 << (32 - range.prefix_len())).saturating_sub(TAKEN);
    (pods > addresses).then_some((pods, addresses))
}

/// The last part of a chain of errors.
fn tail(message: &str) -> &str {
    let start = FORMS.iter().filter_map(|form| message.find(form[0])).min().unwrap_or_default();
    &message[start..]
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn exhausted_ranges_are_found() {
        for message in [
            "failed to setup network for sandbox \"x\": plugin type=\"calico\" failed (add): failed to request IPv4 addresses: Assigned 0 out of 1 requested IPv4 addresses; No more free affine blocks and strict affinity enabled",
            "failed to setup network for sandbox \"x\": plugin type=\"bridge\" failed (add): failed to allocate for range 0: no IP addresses available in range set: 10.244.0.1-10.244.0.254",
        ] {
            assert_eq!(found(&RULE, [event_of("Pod", "web", "FailedCreatePodSandBox", message)]).len(), 1);
        }
        assert_eq!(
            found(
                &RULE,
                [event_of("Pod", "web", "FailedCreatePodSandBox", "plugin type=\"calico\" failed (add): unauthorized")]
            ),
            [""; 0]
        );
    }

    #[test]
    fn a_range_that_is_too_small_is_foretold() {
        let node = |range: &str, pods: &str| json!({"kind": "Node", "metadata": {"name": "one"}, "spec": {"podCIDR": range}, "status": {"allocatable": {"pods": pods}}});
        assert_eq!(
            found(&RULE, [node("10.244.0.0/26", "110")]),
            ["one may run 110 pods, and its range 10.244.0.0/26 has 61 addresses for them"]
        );
        assert_eq!(found(&RULE, [node("10.244.0.0/24", "110"), node("fd00::/64", "110")]), [""; 0]);
    }
}
