//! A13: the kubelet looks for static pods where there are none.

use crate::evidence::{Evidence, Place};
use crate::facts::{Fact, FileKind};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;
use crate::rules::control_plane::component_of_file;
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const USUAL: &str = "/etc/kubernetes/manifests/";
const SIGN: Sign = Sign {
    programs: &["kubelet"],
    words: &[&["Unable to read config path"], &["path does not exist, ignoring"]],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "A13",
    title: "the kubelet looks for static pods where there are none",
    layer: Layer::Kubelet,
    explains: &[Explains { ids: &["A15", "H2", "H3"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, config) in evidence.documents("kubelet") {
        let path = text(&config["staticPodPath"]).trim_end_matches('/');
        let strays: Vec<usize> = strays(evidence, &item.place, path).collect();
        let missing = evidence.file(&item.place, path).filter(|(_, kind)| *kind == FileKind::Missing);
        let text = match (missing, strays.is_empty()) {
            (Some(_), _) if !path.is_empty() => {
                format!("{path}, where the kubelet looks for static pods, does not exist")
            }
            (_, false) if path.is_empty() => {
                format!("the kubelet is told of no directory of static pods, and {USUAL} has some")
            }
            (_, false) => format!("the kubelet looks for static pods in {path}, and they lie in {USUAL}"),
            _ => continue,
        };
        let mut proof = vec![index];
        proof.extend(missing.map(|(file, _)| file));
        proof.extend(strays);
        found.push(finding(evidence, &item.place, item, text, proof));
    }
    for told in SIGN.told(evidence) {
        if found.iter().all(|known| known.place != told.item.place) {
            let text = format!("the kubelet says: {}", told.text.trim());
            found.push(finding(evidence, &told.item.place, told.item, text, told.lines));
        }
    }
    found
}

/// On a machine that has no control plane, the directory may well be missing.
fn finding(
    evidence: &Evidence,
    place: &Place,
    item: &crate::evidence::Item,
    text: String,
    proof: Vec<usize>,
) -> Finding {
    let repair = Repair::of(&[
        ("Set the path again", "grep staticPodPath /var/lib/kubelet/config.yaml"),
        (
            "Make the directory where it is gone, and write the manifests anew",
            "mkdir -p /etc/kubernetes/manifests; kedge init phase control-plane all; kedge init phase etcd local",
        ),
        ("Restart the kubelet", "systemctl restart kubelet"),
    ]);
    let subject = Subject::new("File", USUAL.trim_end_matches('/'));
    let finding = Finding::failure(subject, item, Certainty::Proven, text, proof, repair);
    if has_control_plane(evidence, place) { finding } else { finding.warning() }
}

/// Manifests of the control plane in the usual directory, where the kubelet is told to look elsewhere.
fn strays<'a>(evidence: &'a Evidence, place: &'a Place, path: &'a str) -> impl Iterator<Item = usize> + 'a {
    let files = evidence.manifests().filter(move |(_, item, file)| {
        item.place == *place
            && format!("{path}/") != USUAL
            && file.path.starts_with(USUAL)
            && component_of_file(&file.path).is_some()
    });
    files.map(|(index, _, _)| index)
}

fn has_control_plane(evidence: &Evidence, place: &Place) -> bool {
    evidence.items.iter().filter(|item| item.place == *place).any(|item| match &item.fact {
        Fact::Call { error, .. } => error.is_some(),
        Fact::Certificate(certificate) => certificate.path.ends_with("/pki/apiserver.crt"),
        Fact::Manifest(manifest) => component_of_file(&manifest.path).is_some(),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn config(path: &str) -> Item {
        document("kubelet", json!({"staticPodPath": path}))
    }

    #[test]
    fn the_kubelets_complaint_is_found() {
        check_lines(
            &RULE,
            &[
                (
                    "kubelet",
                    r#"E0722 10:00:00.0 1 file.go:104] "Unable to read config path" err="path does not exist, ignoring" path="/etc/kubernetes/manifests""#,
                ),
                (
                    "kubelet",
                    "E0722 10:00:00.0 1 file_linux.go:61] \"Unable to read config path\" path=\"/etc/kubernetes/manifests\"",
                ),
            ],
            &[("kubelet", r#"I0722 "Adding static pod path" path="/etc/kubernetes/manifests""#)],
        );
    }

    #[test]
    fn another_directory_than_the_one_with_files_is_found() {
        let manifest = || scheduler_manifest("--v=2", "/etc/kubernetes/scheduler.conf", "FileOrCreate");
        let with = |item: Item| manifest().into_iter().chain([item]);
        assert_eq!(found_among(&RULE, with(config("/etc/kubernetes/manifest"))).len(), 1);
        assert_eq!(found_among(&RULE, with(config(""))).len(), 1);
        assert_eq!(found_among(&RULE, with(config("/etc/kubernetes/manifests"))), [""; 0]);
    }

    #[test]
    fn a_directory_that_is_gone_is_found() {
        let gone = file("/etc/kubernetes/manifests", FileKind::Missing);
        assert_eq!(found_among(&RULE, [config("/etc/kubernetes/manifests"), gone]).len(), 1);
    }
}
