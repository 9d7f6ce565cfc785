//! A10: a flag names a file that lies on the host and in no volume of the container.

use crate::evidence::Evidence;
use crate::facts::FileKind;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::subject;
use crate::rules::control_plane::{component_of, effects, host_path, path_flags, pods_of_manifests};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "A10",
    title: "a flag of a component names a file outside its mounts",
    layer: Layer::Etcd,
    explains: effects::OF_A_COMPONENT,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, pod) in pods_of_manifests(evidence) {
        let Some(component) = component_of(pod) else { continue };
        let outside =
            path_flags(pod).filter(|(flag, path)| !flag.ends_with("kubeconfig") && host_path(pod, path).is_none());
        for (flag, path) in outside {
            let Some((file, FileKind::File)) = evidence.file(&item.place, path) else { continue };
            let repair = Repair::of(&[("Mount the file, or move it into a directory that is mounted", "")])
                .acting(0, component.restore());
            let text = format!(
                "--{flag} of {}: {path} lies on the host, and is not mounted into the container",
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
    fn a_file_beside_the_mounts_is_found_and_one_that_is_nowhere_is_not_this() {
        let items =
            || scheduler_manifest("--tls-cert-file=/opt/cert.pem", "/etc/kubernetes/scheduler.conf", "FileOrCreate");
        let mut there = items();
        there.push(file("/opt/cert.pem", FileKind::File));
        assert_eq!(found_among(&RULE, there).len(), 1);
        let mut nowhere = items();
        nowhere.push(file("/opt/cert.pem", FileKind::Missing));
        assert_eq!(found_among(&RULE, nowhere), [""; 0]);
    }
}
