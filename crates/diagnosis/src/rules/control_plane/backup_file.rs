//! A14: a copy of a manifest lies beside it, and the kubelet reads both.

use std::collections::BTreeMap;

use crate::action::Action;
use crate::evidence::{Evidence, Place};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;
use crate::rules::{Layer, Rule};

/// A pod that files of one directory of a machine make: machine, directory, name.
type Made<'a> = (&'a Place, &'a str, &'a str);

pub(super) const RULE: Rule = Rule {
    id: "A14",
    title: "two files in the directory of static pods make the same pod",
    layer: Layer::Etcd,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut files: BTreeMap<Made<'_>, Vec<(usize, &str)>> = BTreeMap::new();
    for (index, item, manifest) in evidence.manifests() {
        let Ok(pod) = &manifest.pod else { continue };
        // Copies that are kept elsewhere are nobody's to read.
        let directory = manifest.path.rsplit_once('/').map_or("", |(directory, _)| directory);
        files
            .entry((&item.place, directory, text(&pod["metadata"]["name"])))
            .or_default()
            .push((index, &manifest.path));
    }
    let twice = files.into_iter().filter(|(_, files)| files.len() > 1).map(|((_, _, name), files)| {
        let paths: Vec<&str> = files.iter().map(|(_, path)| *path).collect();
        // The copy is the one whose name is no plain manifest's.
        let copy = paths.iter().find(|path| !path.ends_with(".yaml") && !path.ends_with(".json")).unwrap_or(&paths[1]);
        let repair = Repair::of(&[("Keep copies outside the directory", &format!("mv {copy} /root/"))])
            .acting(0, Action::MoveOut { path: (*copy).to_owned() });
        let text = format!("{} each make the pod {name}: the kubelet reads every file", paths.join(" and "));
        let item = &evidence.items[files[0].0];
        let proof = files.iter().map(|(index, _)| *index).collect();
        Finding::failure(Subject::new("File", copy), item, Certainty::Proven, text, proof, repair)
    });
    twice.collect()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_copy_beside_the_manifest_is_found_and_named() {
        let pod = |name: &str| Ok(pod("kube-system", name, json!({}), json!({})));
        let texts = found_among(
            &RULE,
            [
                manifest("/m/kube-scheduler.yaml", pod("kube-scheduler")),
                manifest("/m/kube-scheduler.yaml.bak", pod("kube-scheduler")),
                manifest("/m/etcd.yaml", pod("etcd")),
                manifest("/kept/etcd.yaml", pod("etcd")),
            ],
        );
        assert_eq!(
            texts,
            [
                "/m/kube-scheduler.yaml and /m/kube-scheduler.yaml.bak each make the pod kube-scheduler: the kubelet reads every file"
            ]
        );
    }
}
