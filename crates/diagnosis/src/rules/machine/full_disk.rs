//! F1 and F3 in one look at the file systems would hide which of them it is: this is F1, the bytes.

use crate::evidence::Evidence;
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "F1",
    title: "a disk is full",
    layer: Layer::Hardware,
    explains: &[
        Explains { ids: &["A15", "H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["E4", "W2"], scope: Scope::SameNode },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let disks = evidence.pick(|fact| match fact {
        Fact::FileSystem(disk) if disk.size > 0 => Some(disk),
        _ => None,
    });
    let mut found = Vec::new();
    for (index, item, disk) in disks {
        let percent = disk.available.saturating_mul(100) / disk.size;
        if percent >= 10 {
            continue;
        }
        let repair = Repair::of(&[
            ("See what takes the room", &format!("du -xh --max-depth=2 {} | sort -h | tail", disk.path)),
            ("Images that nothing uses", "crictl rmi --prune"),
        ]);
        let text = format!("{} has {percent} % of its room left", disk.path);
        let subject = Subject::new("FileSystem", &disk.path);
        let mut finding = Finding::failure(subject, item, Certainty::Proven, text, vec![index], repair);
        finding.severity = if percent < 2 { Severity::Failure } else { Severity::Warning };
        found.push(finding);
    }
    for (index, item, node) in evidence.objects("Node") {
        let pressed = crate::object::condition(node, "DiskPressure").filter(|condition| condition["status"] == "True");
        let Some(condition) = pressed else { continue };
        let name = crate::object::text(&node["metadata"]["name"]);
        let text = format!("{name}: {}", crate::object::text(&condition["message"]));
        let repair = Repair::of(&[("See what takes the room, on the machine", "kedge doctor node")]);
        let subject = crate::object::subject(node);
        found.push(Finding::failure(subject, item, Certainty::Proven, text, vec![index], repair).on_node(name));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn disk(available: u64) -> Item {
        on(
            "one",
            Fact::FileSystem(crate::facts::FileSystemFact {
                path: "/var".to_owned(),
                size: 1000,
                available,
                inodes: 0,
                inodes_free: 0,
            }),
        )
    }

    #[test]
    fn full_disks_and_pressed_nodes_are_found() {
        assert_eq!(found_among(&RULE, [disk(10)]).len(), 1);
        let node =
            node("one", json!([{"type": "DiskPressure", "status": "True", "message": "kubelet has disk pressure"}]));
        assert_eq!(found(&RULE, [node]), ["one: kubelet has disk pressure"]);
    }

    #[test]
    fn half_full_ones_are_not() {
        assert_eq!(found_among(&RULE, [disk(500)]), [""; 0]);
        assert_eq!(found(&RULE, [node("one", json!([{"type": "DiskPressure", "status": "False"}]))]), [""; 0]);
    }
}
