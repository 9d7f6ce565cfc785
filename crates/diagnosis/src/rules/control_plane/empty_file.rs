//! A7: a kubeconfig of a static pod is an empty file, which the kubelet made because the host path was mistyped.

use crate::evidence::{Evidence, FileKind};
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{list, subject, text};
use crate::rules::control_plane::{component_of, effects, pods_of_manifests};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "A7",
    title: "a mistyped host path made an empty kubeconfig",
    layer: Layer::Etcd,
    explains: effects::OF_A_COMPONENT,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, pod) in pods_of_manifests(evidence) {
        let Some(component) = component_of(pod) else { continue };
        for volume in list(&pod["spec"]["volumes"]).filter(|volume| volume["hostPath"]["type"] == "FileOrCreate") {
            let path = text(&volume["hostPath"]["path"]);
            let Some((file, FileKind::EmptyFile)) = evidence.file(&item.place, path) else { continue };
            let repair = Repair::of(&[
                (
                    "Correct the host path in the manifest",
                    &format!("kedge init phase control-plane {} --dry-run", component.phase()),
                ),
                ("Remove the empty file", &format!("rm {path}")),
            ]);
            let text = format!(
                "{path}, a host path of {}, is an empty file: the kubelet made it, because nothing was there",
                component.name()
            );
            found.push(
                Finding::failure(subject(pod), item, Certainty::Proven, text, vec![index, file], repair)
                    .only(component.effects()),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_empty_file_below_a_kubeconfig_is_found() {
        let mut items = scheduler_manifest(
            "--kubeconfig=/etc/kubernetes/scheduler.conf",
            "/etc/kubernetes/schedulr.conf",
            "FileOrCreate",
        );
        items.push(file("/etc/kubernetes/schedulr.conf", FileKind::EmptyFile));
        assert_eq!(found_among(&RULE, items).len(), 1);
    }

    #[test]
    fn a_file_with_content_is_right() {
        let mut items = scheduler_manifest(
            "--kubeconfig=/etc/kubernetes/scheduler.conf",
            "/etc/kubernetes/scheduler.conf",
            "FileOrCreate",
        );
        items.push(file("/etc/kubernetes/scheduler.conf", FileKind::File));
        assert_eq!(found_among(&RULE, items), [""; 0]);
    }
}
