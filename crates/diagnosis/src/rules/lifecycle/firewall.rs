//! D5: firewalld stands between the machines of the cluster.

use crate::evidence::{Evidence, Place};
use crate::facts::NetworkFact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::lines::one_of_each_machine;
use crate::rules::preflight::checks;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "D5",
    title: "firewalld refuses the cluster's packets",
    layer: Layer::System,
    explains: &[Explains { ids: &["A15", "B11", "D20", "E1", "E22", "G1", "G3", "G6"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let units = evidence.units().filter(|(_, _, unit)| unit.name == "firewalld" && unit.active == "active");
    let refusing = units.filter_map(|(index, item, _)| {
        let (probe, to) = refused_by(evidence, &item.place)?;
        let text = format!("firewalld is active here, and {to} cannot be reached");
        let subject = Subject::machine(&item.place);
        Some(Finding::failure(subject, item, Certainty::Likely, text, vec![index, probe], repair()))
    });
    let warned = checks(evidence, "Firewalld").map(|check| {
        let subject = Subject::machine(&check.item.place);
        let text = format!("firewalld may refuse the cluster's packets: {}", check.text);
        let mut finding = Finding::failure(subject, check.item, Certainty::Possible, text, vec![check.index], repair());
        finding.severity = check.severity;
        finding
    });
    one_of_each_machine(refusing.chain(warned))
}

/// A port of this machine that another one cannot reach.
fn refused_by(evidence: &Evidence, place: &Place) -> Option<(usize, String)> {
    let Place::Node(name) = place else { return None };
    evidence.networks().find_map(|(index, _, fact)| match fact {
        NetworkFact::Probe { to, port, error: Some(error), .. } if to == name && !error.contains("refused") => {
            Some((index, format!("port {port} of {to}")))
        }
        _ => None,
    })
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "Open the control plane's ports, on a control plane",
            "firewall-cmd --permanent --add-port={6443,2379-2380,10250,10257,10259}/tcp",
        ),
        (
            "Open the kubelet's port and those of NodePorts, on each machine",
            "firewall-cmd --permanent --add-port={10250,30000-32767}/tcp",
        ),
        (
            "And those of the pod network: VXLAN, BGP",
            "firewall-cmd --permanent --add-port={4789,8472}/udp --add-port=179/tcp",
        ),
        ("Load them", "firewall-cmd --reload"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::facts::NetworkFact;
    use crate::rules::fixtures::*;

    fn probe(error: &str) -> Item {
        let (to, protocol, error) = ("one".to_owned(), "tcp".to_owned(), Some(error.to_owned()));
        on("two", Fact::Network(NetworkFact::Probe { to, protocol, port: 10250, error }))
    }

    #[test]
    fn a_firewall_counts_where_a_port_is_out_of_reach() {
        let active = || unit("firewalld", "active", "enabled");
        assert_eq!(found_among(&RULE, [active(), probe("No route to host")]).len(), 1);
        assert_eq!(found_among(&RULE, [active(), probe("Connection refused")]), [""; 0]);
        assert_eq!(found_among(&RULE, [active()]), [""; 0]);
        assert_eq!(found_among(&RULE, [unit("firewalld", "inactive", "disabled"), probe("No route to host")]), [""; 0]);
    }

    #[test]
    fn a_check_of_a_command_is_told() {
        let line = "\t[WARNING Firewalld]: firewalld is active, please ensure ports [6443 10250] are open or your cluster may not function correctly";
        assert_eq!(found_among(&RULE, [pasted("kubeadm", line)]).len(), 1);
    }
}
