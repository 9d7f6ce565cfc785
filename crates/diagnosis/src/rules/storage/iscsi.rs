//! I8: a machine cannot log in to iSCSI: the initiator is not installed or does not run, or another machine has its name.

use std::collections::BTreeMap;

use crate::evidence::{Evidence, Item, Place};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;
use crate::rules::events::told_of_nodes;
use crate::rules::lines::says;
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const FORMS: &[&[&str]] = &[
    &["iscsiadm", "executable file not found"],
    &["iscsiadm", "No such file or directory"],
    &["iscsiadm: not found"],
    &["iscsiadm: command not found"],
    &["failed to get iscsi transport list"],
    &["iscsiadm: can not connect to iSCSI daemon"],
    &["please make sure you have iscsiadm/open-iscsi installed"],
];

pub(super) const RULE: Rule = Rule {
    id: "I8",
    title: "a machine cannot use iSCSI",
    layer: Layer::System,
    explains: &[
        Explains { ids: &["I6", "W1", "W2"], scope: Scope::SameNode },
        Explains { ids: &["W1"], scope: Scope::SameSubject },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = twins(evidence);
    let wanted = |_: &str, message: &str| says(message, FORMS);
    let told = told_of_nodes(evidence, &repair(), wanted, |_, message| format!("iSCSI is not usable: {message}"));
    let sign = Sign { programs: &[], words: FORMS, over: &["iSCSI daemon with pid", "iscsid is now running"] };
    let lines = sign.found(
        evidence,
        Certainty::Proven,
        |_| repair(),
        |told| format!("iSCSI is not usable: {}", told.text.trim()),
    );
    for finding in told.into_iter().chain(lines) {
        if !found.iter().any(|known| known.place == finding.place) {
            found.push(finding);
        }
    }
    found
}

/// Machines with the same initiator's name: a target takes the second for the first.
fn twins(evidence: &Evidence) -> Vec<Finding> {
    let mut names: BTreeMap<&str, Vec<(usize, &Item)>> = BTreeMap::new();
    for (index, item, initiator) in evidence.documents("iscsi") {
        names.entry(text(&initiator["initiatorName"])).or_default().push((index, item));
    }
    let several = names.into_iter().filter(|(name, machines)| !name.is_empty() && machines.len() > 1);
    let finding = |(name, machines): (&str, Vec<(usize, &Item)>)| {
        let list = machines.iter().map(|(_, item)| machine(&item.place)).collect::<Vec<_>>().join(", ");
        let told = format!("{list} have the same iSCSI initiator name {name}, so a target takes one for the other");
        let repair = Repair::of(&[(
            "On all but one, with no volume in use: make a new name",
            "echo InitiatorName=$(iscsi-iname) > /etc/iscsi/initiatorname.iscsi && systemctl restart iscsid",
        )]);
        let (_, last) = machines[machines.len() - 1];
        let proof = machines.iter().map(|(index, _)| *index).collect();
        Finding::failure(Subject::machine(&last.place), last, Certainty::Proven, told, proof, repair)
    };
    several.map(finding).collect()
}

fn machine(place: &Place) -> &str {
    match place {
        Place::Node(name) => name,
        Place::Cluster => "a machine",
    }
}

fn repair() -> Repair {
    Repair::of(&[
        ("Install the initiator (iscsi-initiator-utils on Red Hat's kin)", "apt-get install open-iscsi"),
        ("Start it, now and after a reboot", "modprobe iscsi_tcp && systemctl enable --now iscsid"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_missing_initiator_is_found() {
        let longhorn = "failed to execute: /usr/bin/nsenter [nsenter --mount=/host/proc/1/ns/mnt iscsiadm --version], output nsenter: failed to execute iscsiadm: No such file or directory";
        let line = || container_logged("longhorn-manager", longhorn);
        assert_eq!(found_among(&RULE, [line()]).len(), 1);
        assert_eq!(found_among(&RULE, [ago(line(), 7200)]), [""; 0]);
        let event = |message: &str| event_of("Pod", "db", "FailedMount", message);
        assert_eq!(
            found(
                &RULE,
                [event(
                    "MountVolume.WaitForAttach failed: executable file not found in $PATH: iscsiadm: command not found"
                )]
            )
            .len(),
            1
        );
        assert_eq!(found(&RULE, [event("iscsi: failed to find device path: timed out")]), [""; 0]);
    }

    #[test]
    fn twins_are_found() {
        let on_machine = |node: &str, name: &str| Item {
            place: Place::Node(node.to_owned()),
            ..document("iscsi", json!({"initiatorName": name}))
        };
        let found =
            |second| found_among(&RULE, [on_machine("one", "iqn.1993-08.org.debian:01:a"), on_machine("two", second)]);
        assert_eq!(found("iqn.1993-08.org.debian:01:a").len(), 1);
        assert_eq!(found("iqn.1993-08.org.debian:01:b"), [""; 0]);
    }
}
