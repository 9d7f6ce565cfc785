//! D3: the name of a machine leads nowhere.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::lines::one_of_each_machine;
use crate::rules::preflight::checks;
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "D3", title: "the name of a machine has no address", layer: Layer::System, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let checks = checks(evidence, "Hostname");
    one_of_each_machine(checks.filter(|check| !check.text.contains("RFC 1123")).map(|check| {
        let repair = Repair::of(&[(
            "Name it where the resolver looks first",
            "echo \"$(hostname -I | cut -d' ' -f1) $(hostname)\" >> /etc/hosts",
        )]);
        let text = format!("the machine's own name cannot be resolved: {}", check.text);
        let mut finding = Finding::failure(
            Subject::machine(&check.item.place),
            check.item,
            Certainty::Proven,
            text,
            vec![check.index],
            repair,
        );
        finding.severity = check.severity;
        finding
    }))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_name_without_an_address_is_found_once() {
        let lines = [
            "\t[WARNING Hostname]: hostname \"x\" could not be reached",
            "\t[WARNING Hostname]: hostname \"x\": lookup x on 10.0.0.1:53: no such host",
        ];
        assert_eq!(found_among(&RULE, lines.map(|line| pasted("kubeadm", line))).len(), 1);
        assert_eq!(found_among(&RULE, [pasted("kubeadm", "\t[WARNING Swap]: swap is on")]), [""; 0]);
    }
}
