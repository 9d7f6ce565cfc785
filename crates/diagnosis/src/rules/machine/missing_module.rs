//! F15: the kernel lacks a module that the node or its network needs.

use crate::action::Action;
use crate::evidence::{Evidence, Place};
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::lines::{one_of_each_machine, says, told};
use crate::rules::{Explains, Layer, Rule, Scope};

/// What no node can do without; others matter where something asks for them.
const NEEDED: &[&str] = &["overlay", "nf_conntrack"];
/// What networks and volumes ask for.
const MODULES: &[&str] = &[
    "vxlan",
    "geneve",
    "wireguard",
    "ip_tables",
    "nf_tables",
    "br_netfilter",
    "overlay",
    "iscsi_tcp",
    "ip_vs",
    "ipip",
    "nfs",
];

pub(super) const RULE: Rule = Rule {
    id: "F15",
    title: "the kernel lacks a module",
    layer: Layer::System,
    explains: &[Explains { ids: &["D2", "E3", "E4", "E6", "G17", "G19", "W1", "W2"], scope: Scope::SameNode }],
    find,
};

const FORMS: &[&[&str]] = &[
    &["modprobe: FATAL: Module", "not found"],
    &["can't initialize iptables table", "Table does not exist"],
    &["failed to create vxlan device", "operation not supported"],
    &["failed to add vxlan interface", "operation not supported"],
    &["unknown filesystem type 'overlay'"],
    &["overlayfs", "no such device"],
    &["unable to load module"],
    &["iscsi driver", "transport not found"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let absent = evidence.pick(|fact| match fact {
        Fact::Module { name, loaded: false } if NEEDED.contains(&name.as_str()) => Some(name),
        _ => None,
    });
    let absent = absent.map(|(index, item, name)| {
        let text = format!("the kernel has no {name}");
        let mut finding =
            Finding::failure(Subject::machine(&item.place), item, Certainty::Likely, text, vec![index], repair(name));
        finding.severity = Severity::Warning;
        finding
    });
    let told = told(evidence, |line| says(&line.text, FORMS), |_| false);
    let told: Vec<Finding> = told
        .iter()
        .filter_map(|told| {
            let line = told.line.text.trim();
            let name = MODULES.iter().find(|name| line.contains(*name)).copied().unwrap_or("MODULE");
            if is_loaded(evidence, &told.item.place, name) {
                return None;
            }
            Some(told.finding(
                Subject::machine(&told.item.place),
                Certainty::Proven,
                format!("something asks for {name} in vain: {line}"),
                repair(name),
            ))
        })
        .collect();
    one_of_each_machine(told.into_iter().chain(absent))
}

/// Whether a module is there by now.
fn is_loaded(evidence: &Evidence, place: &Place, wanted: &str) -> bool {
    let mut modules = evidence.pick(|fact| match fact {
        Fact::Module { name, loaded: true } if name == wanted => Some(()),
        _ => None,
    });
    modules.any(|(_, item, ())| item.place == *place)
}

fn repair(name: &str) -> Repair {
    Repair::of(&[
        (
            "Load it, now and with the machine",
            &format!("modprobe {name} && echo {name} >> /etc/modules-load.d/kubernetes.conf"),
        ),
        (
            "If it is not found: install the package with the other modules of this kernel",
            "apt-get install linux-modules-extra-$(uname -r) || apt-get install linux-modules-extra-raspi",
        ),
        ("After an upgrade of the kernel without a reboot, its modules are gone: reboot", "ls /lib/modules; uname -r"),
    ])
    .acting(0, Action::LoadModule { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn module(name: &str, loaded: bool) -> Item {
        on("one", Fact::Module { name: name.to_owned(), loaded })
    }

    #[test]
    fn what_is_asked_for_in_vain_is_found() {
        let line = || {
            container_logged(
                "kube-flannel",
                "E0722 main.go:1] Error registering network: failed to create vxlan device: operation not supported",
            )
        };
        assert_eq!(
            found_among(&RULE, [line()]),
            [
                "something asks for vxlan in vain: E0722 main.go:1] Error registering network: failed to create vxlan device: operation not supported"
            ]
        );
        assert_eq!(found_among(&RULE, [line(), module("vxlan", true)]), [""; 0]);
        assert_eq!(
            found_among(
                &RULE,
                [logged("kubelet", "modprobe: FATAL: Module br_netfilter not found in directory /lib/modules/6.1.0")]
            )
            .len(),
            1
        );
    }

    #[test]
    fn only_what_every_node_needs_is_missed_unasked() {
        assert_eq!(found_among(&RULE, [module("overlay", false)]).len(), 1);
        assert_eq!(
            found_among(&RULE, [module("vxlan", false), module("iscsi_tcp", false), module("overlay", true)]),
            [""; 0]
        );
    }
}
