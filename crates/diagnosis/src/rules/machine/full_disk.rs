//! F1 and F3 in one look at the file systems would hide which of them it is: this is F1, the bytes.

use crate::evidence::Evidence;
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::lines::{says, told};
use crate::rules::machine::small_filesystem::is_runtimes_memory;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "F1",
    title: "a disk is full",
    layer: Layer::Hardware,
    explains: &[
        Explains { ids: &["A1", "A15", "A16", "H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["B1", "B2", "B5", "B14", "E2", "E4", "E6", "E17", "H1", "W1", "W2"], scope: Scope::SameNode },
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
        // What the runtime has in memory is F2's.
        if percent >= 10 || is_runtimes_memory(evidence, &item.place, &disk.path) {
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
    if found.is_empty() {
        found.extend(told_by_programs(evidence));
    }
    found
}

/// What programs say, where no disk was looked at: one that was looked at and has room says more.
fn told_by_programs(evidence: &Evidence) -> Vec<Finding> {
    let was_seen = |place: &crate::evidence::Place| {
        let mut disks = evidence.pick(|fact| match fact {
            Fact::FileSystem(_) => Some(()),
            _ => None,
        });
        disks.any(|(_, item, ())| item.place == *place)
    };
    let forms: &[&[&str]] = &[
        &["no space left on device"],
        &["No space left on device"],
        &["FreeDiskSpaceFailed"],
        &["Attempting to reclaim ephemeral-storage"],
    ];
    let told = told(evidence, |line| says(&line.text, forms) && !line.text.contains("inotify"), |_| false);
    let told = told.iter().filter(|told| !was_seen(&told.item.place)).map(|told| {
        let repair = Repair::of(&[
            ("See which disk it is, by bytes and by inodes", "df -h; df -i"),
            ("Images that nothing uses", "crictl rmi --prune"),
        ]);
        let text = format!("a program finds a disk full: {}", told.line.text.trim());
        told.finding(Subject::machine(&told.item.place), Certainty::Likely, text, repair)
    });
    crate::rules::lines::one_of_each_machine(told)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn full_disks_and_pressed_nodes_are_found() {
        assert_eq!(found_among(&RULE, [disk("/var", 1000, 10, 0, 0)]).len(), 1);
        let node =
            node("one", json!([{"type": "DiskPressure", "status": "True", "message": "kubelet has disk pressure"}]));
        assert_eq!(found(&RULE, [node]), ["one: kubelet has disk pressure"]);
    }

    #[test]
    fn the_words_of_programs_count_where_no_disk_was_looked_at() {
        let line = || logged("containerd", "level=error msg=\"write /var/lib/containerd/x: no space left on device\"");
        assert_eq!(found_among(&RULE, [line()]).len(), 1);
        assert_eq!(found_among(&RULE, [line(), disk("/var", 1000, 500, 0, 0)]), [""; 0]);
        assert_eq!(found_among(&RULE, [logged("kubelet", "inotify_add_watch /x: no space left on device")]), [""; 0]);
    }

    #[test]
    fn half_full_ones_are_not() {
        assert_eq!(found_among(&RULE, [disk("/var", 1000, 500, 0, 0)]), [""; 0]);
        assert_eq!(found(&RULE, [node("one", json!([{"type": "DiskPressure", "status": "False"}]))]), [""; 0]);
    }
}
