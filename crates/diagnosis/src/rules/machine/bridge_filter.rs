//! D2: what passes a bridge is not filtered, so pods of one machine reach each other and no Service.

use crate::action::Action;
use crate::evidence::{Evidence, Item};
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::lines::one_of_each_machine;
use crate::rules::network::bridge_of_pods;
use crate::rules::preflight::checks;
use crate::rules::{Explains, Layer, Rule, Scope};

const NAME: &str = "net.bridge.bridge-nf-call-iptables";
const CHECK: &str = "FileContent--proc-sys-net-bridge-bridge-nf-call-iptables";

pub(super) const RULE: Rule = Rule {
    id: "D2",
    title: "packets on bridges pass the rules of Services by",
    layer: Layer::System,
    explains: &[Explains { ids: &["G19"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let off = evidence.settings(NAME).filter(|(_, _, value)| *value != Some("1"));
    let off = off.map(|(index, item, value)| {
        let why = value.map_or("does not exist: br_netfilter is not loaded".to_owned(), |value| format!("is {value}"));
        let text = format!("{NAME} {why}: a pod may not reach a Service whose pod is on the same machine");
        let has_bridge = bridge_of_pods(evidence, &item.place).is_some();
        finding(item, text, index, if has_bridge { Severity::Failure } else { Severity::Warning })
    });
    let told = checks(evidence, CHECK).filter(|check| {
        let mut now = evidence.settings(NAME).filter(|(_, item, _)| item.place == check.item.place);
        !now.any(|(_, _, value)| value == Some("1"))
    });
    let told = told.map(|check| finding(check.item, check.text.to_owned(), check.index, check.severity));
    one_of_each_machine(off.chain(told))
}

/// Not every network has a bridge: what is seen is a warning, what ended a command is a failure.
fn finding(item: &Item, text: String, index: usize, severity: Severity) -> Finding {
    let repair = Repair::of(&[
        (
            "Load the module, now and after a reboot",
            "modprobe br_netfilter && echo br_netfilter > /etc/modules-load.d/kubernetes.conf",
        ),
        ("Switch it on", "sysctl -w net.bridge.bridge-nf-call-iptables=1"),
    ])
    .acting(0, Action::LoadModule { name: "br_netfilter".to_owned() })
    .acting(1, Action::SetSetting { name: NAME.to_owned(), value: "1".to_owned() });
    let mut finding =
        Finding::failure(Subject::new("Setting", NAME), item, Certainty::Likely, text, vec![index], repair);
    finding.severity = severity;
    finding
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_absent_or_switched_off_setting_is_found() {
        assert_eq!(found_among(&RULE, [setting("net.bridge.bridge-nf-call-iptables", None)]).len(), 1);
        assert_eq!(found_among(&RULE, [setting("net.bridge.bridge-nf-call-iptables", Some("1"))]), [""; 0]);
    }

    #[test]
    fn a_check_that_failed_is_found() {
        let line = "\t[ERROR FileContent--proc-sys-net-bridge-bridge-nf-call-iptables]: /proc/sys/net/bridge/bridge-nf-call-iptables does not exist";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", line)]).len(), 1);
    }
}
