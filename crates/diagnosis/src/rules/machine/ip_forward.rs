//! D1: the machine does not pass packets on.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::{Layer, Rule};

const NAME: &str = "net.ipv4.ip_forward";

pub(super) const RULE: Rule =
    Rule { id: "D1", title: "the machine does not pass packets on", layer: Layer::System, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let off = evidence.settings(NAME).filter(|(_, _, value)| *value == Some("0"));
    let off = off.map(|(index, item, _)| {
        let repair = Repair::of(&[
            ("Pass packets on, now", "sysctl -w net.ipv4.ip_forward=1"),
            (
                "And after a reboot; a later file in the directory may overrule it",
                "echo net.ipv4.ip_forward=1 > /etc/sysctl.d/99-kubernetes.conf",
            ),
        ]);
        let text = format!("{NAME} is 0: packets of pods end on this machine");
        Finding::failure(Subject::new("Setting", NAME), item, Certainty::Proven, text, vec![index], repair)
    });
    off.collect()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn zero_is_found_and_one_is_not() {
        assert_eq!(found_among(&RULE, [setting("net.ipv4.ip_forward", Some("0"))]).len(), 1);
        assert_eq!(
            found_among(&RULE, [setting("net.ipv4.ip_forward", Some("1")), setting("net.ipv6.x", Some("0"))]),
            [""; 0]
        );
    }
}
