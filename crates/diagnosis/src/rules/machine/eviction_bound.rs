//! A part of F2: a kubelet that is told to count its disk as full long before it is.

use serde_json::Value;

use crate::evidence::{Evidence, Item, Place};
use crate::facts::FileSystemFact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{condition, text};
use crate::rules::machine::small_filesystem::file_systems;
use crate::rules::quantity::quantity;

/// A bound that asks for more than this part of a disk is a mistake.
const MOST: f64 = 0.4;
/// Where a kubelet keeps its files.
const ROOT: &str = "/var/lib/kubelet";

/// A bound of a configuration that asks for too much.
struct Bound {
    /// Where it stands, as in `evictionHard`.
    field: &'static str,
    signal: &'static str,
    /// As it is written.
    text: String,
    /// The part of the disk that has to be free.
    part: f64,
}

pub(super) fn find(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    evidence.documents("kubelet").filter_map(|(document, item, kubelet)| {
        let Place::Node(name) = &item.place else { return None };
        let disk = disk_of(evidence, &item.place);
        let bound = too_large(kubelet, disk.map(|(_, disk)| disk))?;
        let proof = pressed(evidence, name).or_else(|| {
            let (index, disk) = disk?;
            let is_met = (disk.available as f64) < bound.part * disk.size as f64;
            (bound.signal == "nodefs.available" && is_met).then_some(index)
        })?;
        Some(finding(name, item, &bound, vec![proof, document]))
    })
}

fn finding(name: &str, item: &Item, bound: &Bound, proof: Vec<usize>) -> Finding {
    let Bound { field, signal, text, .. } = bound;
    let told = format!(
        "the kubelet of {name} counts its disk as full when {signal} is below {text} ({field}): that is a mistake in its \
         configuration"
    );
    let see = format!("grep -A8 {field} /var/lib/kubelet/config.yaml");
    let repair = Repair::of(&[
        ("See the bounds; 10 % and 15 % are the defaults", &see),
        ("Mend them, and start the kubelet", "systemctl restart kubelet"),
    ]);
    Finding::failure(Subject::new("Node", name), item, Certainty::Proven, told, proof, repair).on_node(name)
}

fn too_large(kubelet: &Value, disk: Option<&FileSystemFact>) -> Option<Bound> {
    ["evictionHard", "evictionSoft"].into_iter().find_map(|field| {
        ["nodefs.available", "imagefs.available"].into_iter().find_map(|signal| {
            let text = text(&kubelet[field][signal]).to_owned();
            let part = match text.strip_suffix('%') {
                Some(percent) => percent.parse::<f64>().ok()? / 100.0,
                None => quantity(&text)? / disk?.size as f64,
            };
            (part > MOST).then_some(Bound { field, signal, text, part })
        })
    })
}

/// The file system of the kubelet's files: the innermost that was looked at.
fn disk_of<'a>(evidence: &'a Evidence, place: &Place) -> Option<(usize, &'a FileSystemFact)> {
    let of_place = file_systems(evidence).filter(|(_, item, _)| item.place == *place);
    let below = of_place.filter(|(_, _, disk)| std::path::Path::new(ROOT).starts_with(&disk.path));
    below.max_by_key(|(_, _, disk)| disk.path.len()).map(|(index, _, disk)| (index, disk))
}

/// What says that the node is under pressure.
fn pressed(evidence: &Evidence, name: &str) -> Option<usize> {
    let (index, _, node) = evidence.object(&Subject::new("Node", name))?;
    condition(node, "DiskPressure").is_some_and(|condition| condition["status"] == "True").then_some(index)
}

#[cfg(test)]
mod tests {
    use crate::rules::fixtures::*;
    use crate::rules::machine::small_filesystem::RULE;

    fn kubelet(field: &str, bound: &str) -> Item {
        document("kubelet", json!({field: {"nodefs.available": bound}}))
    }

    #[test]
    fn a_bound_that_asks_for_half_the_disk_is_found_where_the_node_says_so() {
        let pressed = || on("one", Fact::Object(node("one", json!([{"type": "DiskPressure", "status": "True"}]))));
        assert_eq!(found_among(&RULE, [pressed(), kubelet("evictionHard", "80%")]).len(), 1);
        assert_eq!(found_among(&RULE, [pressed(), kubelet("evictionSoft", "80%")]).len(), 1);
        assert_eq!(found_among(&RULE, [pressed(), kubelet("evictionHard", "10%")]), [""; 0]);
        assert_eq!(found_among(&RULE, [kubelet("evictionHard", "80%")]), [""; 0]);
    }

    #[test]
    fn the_machine_knows_it_without_an_api() {
        let free = |available: u64| disk("/", 1000 << 20, available << 20, 0, 0);
        for bound in ["80%", "600Mi"] {
            assert_eq!(found_among(&RULE, [free(500), kubelet("evictionHard", bound)]).len(), 1, "{bound}");
            assert_eq!(found_among(&RULE, [free(900), kubelet("evictionHard", bound)]), [""; 0], "{bound}");
        }
        assert_eq!(found_among(&RULE, [free(500), kubelet("evictionHard", "100Mi")]), [""; 0]);
    }
}
