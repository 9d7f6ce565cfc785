//! G16: a machine's resolvers are more than pods can have: some are left out.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::events::told_of_nodes;
use crate::rules::network::dns_loop::{nameservers, resolver};
use crate::rules::{Layer, Rule};

/// As many as the C library takes.
const MOST: usize = 3;

pub(super) const RULE: Rule = Rule {
    id: "G16",
    title: "a machine has more nameservers or search domains than pods can have",
    layer: Layer::Network,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        ("Keep the three that matter", "cat /etc/resolv.conf /run/systemd/resolve/resolv.conf"),
        ("Or give the kubelet a file of its own", "resolvConf in /var/lib/kubelet/config.yaml"),
    ]);
    let wanted = |reason: &str, message: &str| reason == "DNSConfigForming" && message.contains("limits were exceeded");
    let mut found = told_of_nodes(evidence, &repair, wanted, |_, message| message.to_owned());
    for (index, item, (path, content)) in evidence.pick(resolver) {
        let count = nameservers(content).count();
        if count > MOST && !found.iter().any(|known| known.place == item.place) {
            let told = format!("{path} has {count} nameservers, and pods get the first {MOST}");
            let subject = Subject::machine(&item.place);
            found.push(Finding::failure(subject, item, Certainty::Proven, told, vec![index], repair.clone()));
        }
    }
    for finding in &mut found {
        finding.severity = Severity::Warning;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn too_many_are_found_and_three_are_not() {
        let message = "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 10.0.0.2 10.0.0.3 10.0.0.4";
        assert_eq!(found(&RULE, [event_of("Pod", "web", "DNSConfigForming", message)]), [message]);
        let file = |text: &str| document("resolv.conf", json!(text));
        let three = "nameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n";
        assert_eq!(found_among(&RULE, [file(&format!("{three}nameserver 10.0.0.5\n"))]).len(), 1);
        assert_eq!(found_among(&RULE, [file(three)]), [""; 0]);
    }
}
