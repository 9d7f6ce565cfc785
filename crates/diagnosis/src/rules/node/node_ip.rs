//! E20: the address that a kubelet is to have is on none of the machine's interfaces.

use crate::evidence::{Evidence, Place};
use crate::facts::NetworkFact;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::{list, text};
use crate::rules::lines::{is_of_kubelet, one_of_each_machine, says, told_of_starts};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "E20",
    title: "the node's address is on no interface",
    layer: Layer::System,
    explains: &[Explains { ids: &["D9", "E2", "E6"], scope: Scope::SameNode }],
    find,
};

const FORMS: &[&[&str]] = &[
    &["node IP", "not found in the host's network interfaces"],
    &["Failed to set some node status fields", "failed to validate nodeIP"],
    &["--node-ip", "cannot be used"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let told = told_of_starts(
        evidence,
        |line| is_of_kubelet(line) && says(&line.text, FORMS),
        |line| (format!("the kubelet's --node-ip is not this machine's: {line}"), repair()),
    );
    one_of_each_machine(told.into_iter().chain(foreseen(evidence)))
}

/// Flags that name an address which no interface has.
fn foreseen(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    evidence.documents("kubelet-flags").filter_map(|(index, item, flags)| {
        let texts = flags.as_str().into_iter().chain(list(flags).map(text));
        let mut words =
            texts.flat_map(str::split_whitespace).filter_map(|word| word.trim_matches('"').split_once("--node-ip="));
        let address = words.next()?.1.split(',').next()?.to_owned();
        let here = addresses(evidence, &item.place);
        let is_wildcard = matches!(address.as_str(), "0.0.0.0" | "::");
        if here.is_empty() || is_wildcard || here.iter().any(|known| *known == address) {
            return None;
        }
        let text = format!("the kubelet is given --node-ip={address}, and no interface has it ({})", here.join(", "));
        let mut finding =
            Finding::failure(Subject::machine(&item.place), item, Certainty::Likely, text, vec![index], repair());
        finding.severity = Severity::Warning;
        Some(finding)
    })
}

/// Addresses of a machine without their prefix lengths.
fn addresses<'a>(evidence: &'a Evidence, place: &Place) -> Vec<&'a str> {
    let interfaces = evidence.networks().filter(|(_, item, _)| item.place == *place);
    let addresses = interfaces.filter_map(|(_, _, fact)| match fact {
        NetworkFact::Interface { addresses, .. } => Some(addresses),
        _ => None,
    });
    addresses.flatten().filter_map(|address| address.split('/').next()).collect()
}

fn repair() -> Repair {
    Repair::of(&[
        ("See which addresses there are", "ip -brief address"),
        (
            "Write the right one, and start the kubelet",
            "sed -i 's/--node-ip=[^ \"]*/--node-ip=ADDRESS/' /var/lib/kubelet/kubeadm-flags.env && systemctl restart kubelet",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::facts::NetworkFact;
    use crate::rules::fixtures::*;

    #[test]
    fn an_address_that_is_nowhere_is_found() {
        let line = "E0722 kubelet_node_status.go:1] \"Failed to set some node status fields\" err=\"failed to validate nodeIP: node IP: \\\"10.0.0.9\\\" not found in the host's network interfaces\"";
        assert_eq!(found_among(&RULE, [logged("kubelet", line)]).len(), 1);
        let interface = |address: &str| {
            let (name, kind, addresses) = ("eth0".to_owned(), "ethernet".to_owned(), vec![address.to_owned()]);
            on("one", Fact::Network(NetworkFact::Interface { name, mtu: 1500, kind, up: true, addresses }))
        };
        let flags = || document("kubelet-flags", json!("KUBELET_KUBEADM_ARGS=\"--node-ip=10.0.0.9\""));
        assert_eq!(found_among(&RULE, [flags(), interface("10.0.0.1/24")]).len(), 1);
        assert_eq!(found_among(&RULE, [flags(), interface("10.0.0.9/24")]), [""; 0]);
        assert_eq!(found_among(&RULE, [flags()]), [""; 0]);
    }
}
