//! D1: the machine does not pass packets on.

use crate::action::Action;
use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::lines::one_of_each_machine;
use crate::rules::preflight::checks;
use crate::rules::{Explains, Layer, Rule, Scope};

const NAME: &str = "net.ipv4.ip_forward";
const CHECK: &str = "FileContent--proc-sys-net-ipv4-ip_forward";

pub(super) const RULE: Rule = Rule {
    id: "D1",
    title: "the machine does not pass packets on",
    layer: Layer::System,
    explains: &[Explains { ids: &["G6", "G14", "W1"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let off = evidence.settings(NAME).filter(|(_, _, value)| *value == Some("0"));
    let off = off.map(|(index, item, _)| {
        let text = format!("{NAME} is 0: packets of pods end on this machine");
        Finding::failure(Subject::new("Setting", NAME), item, Certainty::Proven, text, vec![index], repair())
    });
    // A check of the past; what the setting says now counts more.
    let told = checks(evidence, CHECK).filter(|check| {
        let mut now = evidence.settings(NAME).filter(|(_, item, _)| item.place == check.item.place);
        !now.any(|(_, _, value)| value == Some("1"))
    });
    let told = told.map(|check| {
        let text = format!("packets of pods end on this machine: {}", check.text);
        Finding::failure(
            Subject::new("Setting", NAME),
            check.item,
            Certainty::Proven,
            text,
            vec![check.index],
            repair(),
        )
    });
    one_of_each_machine(off.chain(told))
}

fn repair() -> Repair {
    Repair::of(&[
        ("Pass packets on, now", "sysctl -w net.ipv4.ip_forward=1"),
        (
            "And after a reboot; a later file in the directory may overrule it",
            "echo net.ipv4.ip_forward=1 > /etc/sysctl.d/99-kubernetes.conf",
        ),
    ])
    .acting(0, Action::SetSetting { name: NAME.to_owned(), value: "1".to_owned() })
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

    #[test]
    fn a_check_that_failed_is_found_until_it_is_mended() {
        let line = "\t[ERROR FileContent--proc-sys-net-ipv4-ip_forward]: /proc/sys/net/ipv4/ip_forward contents are not set to 1";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", line)]).len(), 1);
        assert_eq!(found_among(&RULE, [pasted("kubeadm", line), setting("net.ipv4.ip_forward", Some("1"))]), [""; 0]);
    }
}
