//! G19: pods reach no Service whose pod is on their own machine: answers pass the bridge without the rules that would
//! translate them back.

use crate::action::Action;
use crate::evidence::{Evidence, Place};
use crate::facts::NetworkFact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::{Layer, Rule};

const SETTING: &str = "net.bridge.bridge-nf-call-iptables";

pub(super) const RULE: Rule = Rule {
    id: "G19",
    title: "pods do not reach Services of pods on their own machine",
    layer: Layer::Network,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, value) in evidence.settings(SETTING).filter(|(_, _, value)| *value != Some("1")) {
        let Some((bridge_index, bridge)) = bridge_of_pods(evidence, &item.place) else { continue };
        let value = value.map_or("absent".to_owned(), str::to_owned);
        let told = format!(
            "pods are on the bridge {bridge} and {SETTING} is {value}: a Service whose pod is on the same machine does not answer"
        );
        let repair = Repair::of(&[
            (
                "Load the module, now and after a reboot",
                "modprobe br_netfilter && echo br_netfilter > /etc/modules-load.d/kubernetes.conf",
            ),
            ("Switch it on", "sysctl -w net.bridge.bridge-nf-call-iptables=1"),
        ])
        .acting(0, Action::LoadModule { name: "br_netfilter".to_owned() })
        .acting(1, Action::SetSetting { name: SETTING.to_owned(), value: "1".to_owned() });
        let subject = Subject::machine(&item.place);
        let proof = vec![index, bridge_index];
        found.push(Finding::failure(subject, item, Certainty::Likely, told, proof, repair));
    }
    found
}

/// The bridge of a machine to which pods are attached, if there is one.
pub(in crate::rules) fn bridge_of_pods<'a>(evidence: &'a Evidence, place: &Place) -> Option<(usize, &'a str)> {
    evidence.networks().find_map(|(index, item, fact)| match fact {
        NetworkFact::Interface { name, kind, up: true, addresses, .. }
            if item.place == *place && kind == "bridge" && is_of_pods(name) && !addresses.is_empty() =>
        {
            Some((index, name.as_str()))
        }
        _ => None,
    })
}

/// Bridges of CNI plugins; those of docker and of virtual machines have no Services.
pub(super) fn is_of_pods(name: &str) -> bool {
    ["cni", "kube-bridge", "cbr", "weave", "kedge"].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_bridge_of_pods_without_filter_is_found() {
        let name = "net.bridge.bridge-nf-call-iptables";
        let bridge = |name: &str| interface(name, 1450, "bridge", &["10.244.0.1/24"]);
        assert_eq!(found_among(&RULE, [setting(name, None), bridge("cni0")]).len(), 1);
        assert_eq!(found_among(&RULE, [setting(name, Some("0")), bridge("cni0")]).len(), 1);
        assert_eq!(found_among(&RULE, [setting(name, Some("1")), bridge("cni0")]), [""; 0]);
        assert_eq!(found_among(&RULE, [setting(name, None), bridge("docker0")]), [""; 0]);
        assert_eq!(found_among(&RULE, [setting(name, None)]), [""; 0]);
    }
}
